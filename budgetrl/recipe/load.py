"""Find a recipe, merge what it extends and the command line, and say where each value is from.

    load_recipe("quickstart", sets=["lora.rank=8"])
      read TOML -> layers (extends first, --set last) -> merged tables + sources -> Recipe

Tables merge key by key, arrays of tables by their `name`, `suite` or `key`. Setting a key again
drops the provenance ([[stated]], [[inferred]], [[deviation]]) that an earlier layer gave it; with
another model or other data, what was said of a paper goes (recipe/claims.py). One source of data
wins: naming data.path drops an inherited data.id, and the other way round. All problems of a
recipe are reported at once.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import budgetrl
from budgetrl.errors import RecipeError, UsageError, did_you_mean
from budgetrl.files import read_regular
from budgetrl.recipe.flat import MERGE_KEYS, UNSET, flat_items, flat_values, is_tables
from budgetrl.recipe.known_data import KNOWN_DATA
from budgetrl.recipe.merge import Layer, Merged
from budgetrl.recipe.schema import Recipe
from budgetrl.recipe.validate import Located, is_key, validate

_MOST_LAYERS = 100
_MAX_BYTES = 1 << 20
"""Of a recipe file."""
_PATH_KEYS = (
    "model.adapter",
    "teacher.adapter",
    "data.path",
    "engine.script",
    "checkpoint.mirror",
    "signal.solve_rates",
)


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A valid recipe, and where it came from."""

    recipe: Recipe
    path: Path
    text: str
    """The recipe file, verbatim."""
    sources: Mapping[str, str]
    """Flat key ("lora.rank", "eval.aime24.samples") -> where its value is from."""
    notes: tuple[str, ...] = ()
    """What was dropped because another value took its place, a line each."""


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
    merged = Merged()
    for number, layer in enumerate(_layers(path, ())):
        if number == _MOST_LAYERS:
            raise RecipeError(f"{path}: extends more than {_MOST_LAYERS} files.")
        for key in _taken_out(layer.tables):
            merged.remove(key)
        merged.add(layer)
    for text in (*sets, *([] if seed is None else [f"recipe.seed={seed}"])):
        _override(merged, text)
    _add_known_data(merged)
    recipe = validate(merged.tables, Located(str(path), merged.origin))
    sources = _describe_sources(recipe, merged.sources)
    return LoadedRecipe(recipe, path, _read_text(path), sources, tuple(merged.notes))


def _taken_out(tables: dict[str, Any]) -> list[str]:
    """Keys of a file whose value is "unset", which are no values any more."""
    found = [
        (name, key)
        for name, table in tables.items()
        if isinstance(table, dict)
        for key, value in table.items()
        if value == UNSET and is_key(name, key)
    ]
    for name, key in found:
        del tables[name][key]
    return [f"{name}.{key}" for name, key in found]


def _override(merged: Merged, text: str) -> None:
    """Merge "a.b=c" of the command line; "a.b=unset" takes the value out."""
    if text.partition("=")[2].strip() == UNSET:
        merged.remove(_unset_key(text))
        return
    merged.add(Layer("command line", "command line", _parse_set(text, merged.tables)))


def _add_known_data(merged: Merged) -> None:
    """What is known of a data set of the hub, where no layer says it."""
    own = _known_of(merged.tables.get("data"))
    if own:
        merged.add(Layer("known data sets", "known data set", {"data": own}))
    stages = merged.tables.get("stages")
    for stage in stages if stages and is_tables(stages) else ():
        own = _known_of(stage.get("data"))
        if own:
            known = [{"name": stage.get("name"), "data": own}]
            merged.add(Layer("known data sets", "known data set", {"stages": known}))


def _known_of(data: Any) -> dict[str, Any]:
    """What a table of data leaves to be known by its id."""
    if not isinstance(data, dict):
        return {}
    known = KNOWN_DATA.get(str(data.get("id")), {})
    said = {key for key, value in flat_items({"data": data}) if value is not None}
    if any(key.startswith("data.columns.") for key in said):
        return {}
    return {key: value for key, value in known.items() if f"data.{key}" not in said}


def _unset_key(text: str) -> str:
    """The key of `--set KEY=unset`, which has to be one.

    Raises:
        UsageError: it is no key of a recipe, or names an element of an array.
    """
    key = text.partition("=")[0].strip()
    table, *rest = key.split(".")
    if table in MERGE_KEYS:
        rest = rest[1:]
    if not rest or not is_key(table, *rest):
        raise UsageError(
            f"--set {text!r}: {key!r} is no value of a recipe.",
            hint="Write table.key=unset, such as prompt.system=unset; "
            "`budgetrl recipes show NAME --resolved` lists the keys.",
        )
    return key


def change_recipe(recipe: Recipe, sets: Sequence[str]) -> Recipe:
    """A resolved recipe with other values.

    Args:
        recipe: of a run.
        sets: overrides, as for `load_recipe`.

    Raises:
        RecipeError: it is not valid any more; names every problem.
        UsageError: an override that is not of the form a.b=c.
    """
    merged = Merged(recipe.model_dump(mode="json"))
    for text in sets:
        _override(merged, text)
    return validate(merged.tables, Located(recipe.name, merged.origin))


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
    try:
        as_path = Path(text).expanduser()
        if as_path.is_file():
            return as_path.resolve()
        is_folder, is_something = as_path.is_dir(), as_path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, ~nobody, not permitted
        raise RecipeError(f"{text[:200]!r} cannot be a recipe file: {error}.") from None
    if is_folder:
        raise RecipeError(f"{text} is a folder, not a recipe.", hint="Give a .toml file or a name.")
    if is_something:
        raise RecipeError(f"{text} is a pipe or a device, not a recipe.", hint="Give a .toml file.")
    bundled = list_recipes()
    name = text.removesuffix(".toml").removeprefix("recipes/")
    if name in bundled:
        return bundled[name]
    if name.startswith("overlays/") and (recipes_root() / f"{name}.toml").is_file():
        raise RecipeError(
            f"{name} is an overlay, no recipe by itself.",
            hint=f'Name it in a recipe of yours: extends = ["deepscaler_r64", "{name}"].',
        )
    raise RecipeError(
        f"no recipe file {text!r}, and no bundled recipe of that name.",
        hint=f"{did_you_mean(name, bundled, 3)}`budgetrl recipes list` shows all.",
    )


@cache
def recipes_root() -> Path:
    """The folder of the bundled recipes: beside the package in a checkout, inside it in a wheel."""
    package = Path(budgetrl.__file__).resolve().parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def without_comments(text: str) -> str:
    """A recipe file with the same values, laid out anew, and no comments."""
    import tomlkit

    def readable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: readable(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [readable(inner) for inner in value]
        if isinstance(value, str) and "\n" in value:
            return tomlkit.string(value, multiline=True)
        return value

    return tomlkit.dumps(readable(tomllib.loads(text)))


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


def _layers(path: Path, chain: tuple[Path, ...]) -> Iterator[Layer]:
    """The layers of one file, what it extends first."""
    if path in chain:
        raise RecipeError(f"{path}: extends itself by way of {chain[-1]}.")
    if len(chain) == _MOST_LAYERS:
        raise RecipeError(f"{chain[0]}: extends more than {_MOST_LAYERS} files.")
    tables = _parse(path)
    info = tables.get("recipe", {})
    bases = info.pop("extends", []) if isinstance(info, dict) else []
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise RecipeError(
            f"{path}: [recipe] extends must be a list of file names.",
            hint='Such as extends = ["quickstart"].',
        )
    for base in bases:
        yield from _layers(_find_base(base, path), (*chain, path))
    _anchor_paths(tables, path.parent)
    yield Layer(_short(path), "file", tables)


def _find_base(base: str, path: Path) -> Path:
    candidates = [path.parent / base, path.parent / f"{base}.toml"]
    candidates += [recipes_root() / base, recipes_root() / f"{base}.toml"]
    try:
        for candidate in candidates:
            if candidate.is_file():
                return candidate.resolve()
    except (OSError, ValueError) as error:  # too long, a null byte, not permitted
        raise RecipeError(f"{path}: [recipe] extends = {base[:200]!r}: {error}.") from None
    raise RecipeError(
        f"{path}: [recipe] extends = {base!r}: no such file, neither beside the recipe nor "
        "bundled.",
        hint=f"{did_you_mean(base, list_recipes())}`budgetrl recipes list` shows what is bundled.",
    )


def _read_text(path: Path) -> str:
    try:
        return read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not UTF-8 text (byte {error.start}).", hint="A recipe is a TOML text file."
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from None


def _parse(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        tables: dict[str, Any] = _as_json(tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{path}: not valid TOML: {error}.",
            hint='A recipe has lines such as path = "train.jsonl": text stands in quotes.',
        ) from None
    if not tables:
        raise RecipeError(
            f"{path}: the recipe is empty.",
            hint="`budgetrl recipes copy quickstart my.toml` gives a commented start.",
        )
    return tables


def _as_json(value: Any) -> Any:
    """A TOML value with text for dates and times, which no recipe value is."""
    return json.loads(json.dumps(value, default=str))


def _parse_set(text: str, merged: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an override; elements of arrays must be in the merged recipe already."""
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) < 2:
        raise UsageError(
            f"--set {text!r} is not of the form table.key=value.", hint="Such as lora.rank=8."
        )
    try:
        value: Any = _as_json(tomllib.loads(f"value = {raw}")["value"])
    except (ValueError, RecursionError):
        value = raw
    table, rest = parts[0], ".".join(parts[1:])
    if table in MERGE_KEYS:
        name = _element_name(text, table, rest, merged)
        inner = _nest(rest.removeprefix(f"{name}.").split("."), value)
        tables = {table: [{MERGE_KEYS[table]: name, **inner}]}
    else:
        tables = _nest(parts, value)
    _anchor_paths(tables, Path.cwd())
    return tables


def _element_name(text: str, table: str, rest: str, merged: Mapping[str, Any]) -> str:
    """The element that `rest` begins with; names may hold dots ("my.module:reward")."""
    elements = merged.get(table, [])
    merge_key = MERGE_KEYS[table]
    names = [str(e.get(merge_key)) for e in elements] if is_tables(elements) else []
    for name in names:
        if rest.startswith(f"{name}.") and rest != f"{name}.":
            return name
    raise UsageError(
        f"--set {text!r}: names no value of a [[{table}]] of this recipe.",
        hint=f"Write {table}.NAME.key=value with NAME one of: {', '.join(names) or 'none'}. "
        "New elements are added in files.",
    )


def _nest(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _anchor_paths(tables: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute, as seen from the file that states them."""
    stages = tables.get("stages")
    for part in (tables, *(stages if is_tables(stages) and stages else ())):
        for key in _PATH_KEYS:
            table, name = key.split(".")
            _anchor(part.get(table), name, folder)
    for model in (tables.get("model"), tables.get("teacher")):
        if isinstance(model, dict) and str(model.get("id", "")).startswith((".", "~")):
            _anchor(model, "id", folder)
    for spec in tables.get("eval", []) if isinstance(tables.get("eval"), list) else []:
        _anchor(spec, "path", folder)


def _anchor(table: Any, name: str, folder: Path) -> None:
    value = table.get(name) if isinstance(table, dict) else None
    if isinstance(value, str) and not value.startswith("asset:"):
        try:
            table[name] = str((folder / Path(value).expanduser()).resolve())
        except (OSError, RuntimeError, ValueError) as error:  # a loop, ~nobody, a null byte
            raise RecipeError(f"{name} = {value!r} is not a path: {error}.") from None


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
