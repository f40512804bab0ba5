"""`python -m budgetrl`: the same as the command `budgetrl`."""

import sys

from budgetrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
