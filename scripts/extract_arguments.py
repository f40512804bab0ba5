"""Write down the argument names of the unsloth and vllm calls that budgetrl makes, from wheels.

    pip download --no-deps unsloth==2026.10.7 unsloth_zoo==2026.10.7 vllm==0.30.0 -d wheels
    pip download --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9 -d wheels
    python scripts/extract_arguments.py wheels/*.whl > docs/arguments.json

Nothing is imported: vllm needs a GPU's libraries, and unsloth patches other packages.
"""

import argparse
import ast
import json
import zipfile
from pathlib import Path

CALLS = {
    "unsloth": {
        "unsloth/models/loader.py": ["FastLanguageModel.from_pretrained"],
        "unsloth/models/llama.py": [
            "FastLlamaModel.from_pretrained",
            "FastLlamaModel.get_peft_model",
        ],
    },
    "unsloth_zoo": {"unsloth_zoo/vllm_utils.py": ["load_vllm", "load_lora"]},
    "vllm": {
        "vllm/sampling_params.py": ["SamplingParams"],
        "vllm/entrypoints/llm.py": [
            "LLM.enqueue",
            "LLM.sleep",
            "LLM.wake_up",
            "LLM.reset_prefix_cache",
        ],
        "vllm/v1/engine/llm_engine.py": [
            "LLMEngine.step",
            "LLMEngine.has_unfinished_requests",
            "LLMEngine.abort_request",
            "LLMEngine.is_sleeping",
        ],
    },
}
"""Package -> file -> functions (Class.method), or a class whose fields are its arguments."""


def arguments(tree: ast.Module, name: str) -> list[str]:
    """Argument names of a function or fields of a class; the first of the name in the file."""
    body: list[ast.stmt] = tree.body
    *classes, last = name.split(".")
    for outer in classes:
        body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == outer).body
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == last:
            return [
                field.target.id
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            ]
        if isinstance(node, ast.FunctionDef) and node.name == last:
            named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            return [argument.arg for argument in named if argument.arg != "self"]
    raise SystemExit(f"{name}: not found")


def main() -> None:
    """Read wheels, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="+", type=Path)
    found: dict[str, dict[str, list[str]]] = {}
    for path in parser.parse_args().wheels:
        package, version = path.name.split("-")[:2]
        with zipfile.ZipFile(path) as wheel:
            found[f"{package} {version}"] = {
                name: arguments(ast.parse(wheel.read(file)), name)
                for file, names in CALLS[package].items()
                for name in names
            }
    print(json.dumps(dict(sorted(found.items())), indent=1))


if __name__ == "__main__":
    main()
