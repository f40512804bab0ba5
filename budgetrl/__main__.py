"""`python -m budgetrl`: the same as the command `budgetrl`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python puts the current folder first, where a `random.py` would stand for the library's.
        del sys.path[0]
    from budgetrl.cli import main

    sys.exit(main())
