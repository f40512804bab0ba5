"""Where a user's own rewards lie: a function as "module:function", and the files it stands on.

Nothing is imported here: files are found, read and hashed.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from budgetrl.errors import RecipeError


def is_own(name: str) -> bool:
    """Whether a reward's name is a function of the user's."""
    return ":" in name


def find_function(name: str) -> Path:
    """The file of a reward given as "module:function".

    The module is looked for in the current folder, then on Python's path.

    Raises:
        RecipeError: no such file, it is not Python, or it has no such name.
    """
    module_name, _, _ = name.partition(":")
    folders = [Path.cwd(), *(Path(folder) for folder in sys.path if folder)]
    file = next(filter(None, (_module_in(folder, module_name) for folder in folders)), None)
    if file is None:
        raise RecipeError(
            f"[[rewards]] {name}: there is no module {module_name}.",
            hint="Put it in the current folder or on PYTHONPATH.",
        )
    return check_function(name, file)


def check_function(name: str, file: Path) -> Path:
    """The file, absolute, once it is known to define the function.

    Raises:
        RecipeError: it is gone, it is not Python, or it has no such name.
    """
    function_name = name.partition(":")[2]
    try:
        tree = ast.parse(file.read_bytes())
    except OSError as error:
        raise RecipeError(
            f"[[rewards]] {name}: {file} cannot be read: {error.strerror}.",
            hint="Put the file back, or call from the folder that it was moved to.",
        ) from None
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"[[rewards]] {name}: {file} is not Python: {error}.") from None
    if function_name not in _names_of(tree):
        raise RecipeError(f"[[rewards]] {name}: {file} defines no {function_name}.")
    return file.resolve()


def root_of(file: Path, module_name: str) -> Path:
    """The folder from which a module is imported."""
    depth = module_name.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


def source_hashes(name: str, file: Path) -> dict[str, str]:
    """SHA-256 of a reward's file and of all files beside it that it imports, by name."""
    root = root_of(file, name.partition(":")[0])
    found, waiting = {}, [file]
    while waiting:
        source = waiting.pop()
        content = source.read_bytes()
        found[source.relative_to(root).as_posix()] = hashlib.sha256(content).hexdigest()
        modules = _imported(content, source.relative_to(root).parent.parts)
        files = filter(None, (_module_in(root, module) for module in modules))
        known = {root / name for name in found} | set(waiting)
        waiting += [one for one in dict.fromkeys(files) if one not in known]
    return dict(sorted(found.items()))


def _module_in(folder: Path, module_name: str) -> Path | None:
    path = Path(folder, *module_name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imported(content: bytes, package: tuple[str, ...]) -> Iterator[str]:
    """Modules that a source imports, and names it imports from them, which may be modules too."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            parts = [*above, *([node.module] if node.module else [])]
            if parts:
                yield ".".join(parts)
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def _names_of(tree: ast.Module) -> set[str]:
    """The names that a module defines, assigns or imports at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names
