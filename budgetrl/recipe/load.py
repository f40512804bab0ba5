"""Find a recipe, merge what it extends and the command line, and say where each value is from.

    load_recipe("quickstart", sets=["lora.rank=8"])
      read TOML -> layers (extends first, --set last) -> merged tables + sources -> Recipe

Tables merge key by key, arrays of tables by their `name`, `suite` or `key`. Setting a key again
drops the provenance ([[stated]], [[inferred]], [[deviation]]) that an earlier layer gave it.
All problems of a recipe are reported at once.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import budgetrl
from budgetrl.errors import RecipeError, UsageError
from budgetrl.recipe.flat import MERGE_KEYS, PROVENANCE, flat_items, flat_values, is_tables
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.validate import Located, validate

_PATH_KEYS = ("data.path", "engine.script", "checkpoint.mirror")


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A valid recipe, and where it came from."""

    recipe: Recipe
    path: Path
    text: str
    """The recipe file, verbatim."""
    sources: Mapping[str, str]
    """Flat key ("lora.rank", "eval.aime24.samples") -> where its value is from."""


@dataclass(slots=True)
class _Layer:
    label: str
    """File path, or "command line"."""
    source: str
    """What `sources` says of its keys."""
    tables: dict[str, Any]


def load_recipe(ref: str | Path, sets: Sequence[str] = (), seed: int | None = None) -> LoadedRecipe:
    """Load a recipe by path or bundled name.

    Args:
        ref: path of a TOML file, or a name as `budgetrl recipes list` prints it.
        sets: overrides "a.b=c"; the value is read as TOML, else as a string.
        seed: overrides recipe.seed.

    Raises:
        RecipeError: missing, unreadable or invalid; names every problem.
        UsageError: an override that is not of the form a.b=c.
    """
    path = find_recipe(ref)
    layers = list(_layers(path, ()))
    overrides = [*sets, *([] if seed is None else [f"recipe.seed={seed}"])]
    for text in overrides:
        layers.append(_Layer("command line", "command line", _parse_set(text)))
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        _forget_provenance(merged, {key for key, _ in flat_items(layer.tables)})
        _merge(merged, layer.tables)
        for key in dict(flat_items(layer.tables)):
            origin[key], sources[key] = layer.label, layer.source
    recipe = validate(merged, Located(str(path), origin))
    return LoadedRecipe(recipe, path, _read_text(path), _describe_sources(recipe, sources))


def find_recipe(ref: str | Path) -> Path:
    """The file of a recipe given by path or bundled name.

    Raises:
        RecipeError: there is none; suggests near names.
    """
    text = str(ref)
    if not text.strip():
        raise RecipeError(
            "no recipe given.", hint="`budgetrl recipes list` shows the bundled ones."
        )
    as_path = Path(text).expanduser()
    if as_path.is_file():
        return as_path.resolve()
    if as_path.is_dir():
        raise RecipeError(f"{text} is a folder, not a recipe.", hint="Give a .toml file or a name.")
    bundled = list_recipes()
    name = text.removesuffix(".toml").removeprefix("recipes/")
    if name in bundled:
        return bundled[name]
    near = difflib.get_close_matches(name, bundled, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise RecipeError(
        f"no recipe file {text!r}, and no bundled recipe of that name.",
        hint=f"{hint}`budgetrl recipes list` shows all.",
    )


@cache
def recipes_root() -> Path:
    """The folder of the bundled recipes: beside the package in a checkout, inside it in a wheel."""
    package = Path(budgetrl.__file__).resolve().parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def list_recipes() -> dict[str, Path]:
    """Bundled recipes that can run by themselves: name -> file."""
    root = recipes_root()
    found = {}
    for path in sorted(root.rglob("*.toml")):
        relative = path.relative_to(root)
        parts = relative.with_suffix("").parts
        if parts[0] not in ("overlays", "models") and not relative.name.startswith("_"):
            found["/".join(parts)] = path
    return found


def _layers(path: Path, chain: tuple[Path, ...]) -> Iterator[_Layer]:
    """The layers of one file, what it extends first."""
    if path in chain:
        raise RecipeError(f"{path}: extends itself by way of {chain[-1]}.")
    tables = _parse(path)
    info = tables.get("recipe", {})
    bases = info.pop("extends", []) if isinstance(info, dict) else []
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise RecipeError(f"{path}: [recipe] extends must be a list of file names.")
    for base in bases:
        yield from _layers(_find_base(base, path), (*chain, path))
    _anchor_paths(tables, path.parent)
    yield _Layer(_short(path), "file", tables)


def _find_base(base: str, path: Path) -> Path:
    candidates = [path.parent / base, path.parent / f"{base}.toml"]
    candidates += [recipes_root() / base, recipes_root() / f"{base}.toml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise RecipeError(
        f"{path}: [recipe] extends = {base!r}: no such file, neither beside the recipe nor bundled."
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not UTF-8 text (byte {error.start}).", hint="A recipe is a TOML text file."
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from None


def _parse(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}.") from None
    if not tables:
        raise RecipeError(
            f"{path}: the recipe is empty.",
            hint="`budgetrl recipes copy quickstart my.toml` gives a commented start.",
        )
    return tables


def _parse_set(text: str) -> dict[str, Any]:
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) < 2:
        raise UsageError(f"--set {text!r} is not of the form table.key=value.")
    try:
        value: Any = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    if parts[0] in MERGE_KEYS:
        if len(parts) < 3:
            raise UsageError(f"--set {text!r}: name the element, such as eval.aime24.samples=4.")
        inner = _nest(parts[2:], value)
        tables = {parts[0]: [{MERGE_KEYS[parts[0]]: parts[1], **inner}]}
    else:
        tables = _nest(parts, value)
    _anchor_paths(tables, Path.cwd())
    return tables


def _nest(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _anchor_paths(tables: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute, as seen from the file that states them."""
    for key in _PATH_KEYS:
        table, name = key.split(".")
        _anchor(tables.get(table), name, folder)
    model = tables.get("model")
    if isinstance(model, dict) and str(model.get("id", "")).startswith((".", "~")):
        _anchor(model, "id", folder)
    for spec in tables.get("eval", []) if isinstance(tables.get("eval"), list) else []:
        _anchor(spec, "path", folder)


def _anchor(table: Any, name: str, folder: Path) -> None:
    value = table.get(name) if isinstance(table, dict) else None
    if isinstance(value, str) and not value.startswith("asset:"):
        table[name] = str((folder / Path(value).expanduser()).resolve())


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value)
        elif key in MERGE_KEYS and is_tables(value):
            base[key] = _merge_array(old if is_tables(old) else [], value, MERGE_KEYS[key])
        else:
            base[key] = json.loads(json.dumps(value, default=str))


def _merge_array(old: Any, new: Any, merge_key: str) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = [dict(element) for element in old]
    by_key = {element.get(merge_key): element for element in merged}
    for element in new:
        name = element.get(merge_key)
        if name is not None and name in by_key:
            _merge(by_key[name], element)
        else:
            merged.append(dict(element))
            by_key[name] = merged[-1]
    return merged


def _forget_provenance(merged: dict[str, Any], keys: set[str]) -> None:
    """Drop what earlier layers said of keys that a layer sets again."""
    for table in PROVENANCE:
        if table in merged:
            merged[table] = [entry for entry in merged[table] if entry.get("key") not in keys]


def _describe_sources(recipe: Recipe, sources: Mapping[str, str]) -> dict[str, str]:
    described = {key: sources.get(key, "default") for key in flat_values(recipe)}
    for entry in recipe.inferred:
        described[entry.key] = f"inferred: {entry.source}"
    for stated in recipe.stated:
        described[stated.key] = f"paper {stated.where}"
    for deviation in recipe.deviation:
        described[deviation.key] = f"deviation: {deviation.why}"
    return described


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
