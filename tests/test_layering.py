"""Who may import whom: one direction, no way back."""

import ast
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FREE = {"click", "numpy", "rich", "m2e"}
# Of ours, and of the heavy ones. manifests and extract may use the cache; train must never see audio or encoders.
ALLOWED = {
    "common": ({"common"}, {"joblib", "threadpoolctl", "torch"}),
    # matplotlib: only for m2e-cache plot; pandas: only for to_frame().
    "cache": ({"common", "cache"}, {"h5py", "matplotlib", "pandas", "xxhash"}),
    "manifests": ({"common", "cache", "manifests"}, {"pandas", "pooch", "xxhash"}),
    "extract": (
        {"common", "cache", "manifests", "extract"},
        {"av", "distributed", "huggingface_hub", "joblib", "librosa", "music21", "pooch", "safetensors"}
        | {"scipy", "soundfile", "soxr", "threadpoolctl", "torch", "transformers"},
    ),
    "train": (
        {"common", "cache", "train"},
        {"matplotlib", "numba", "pandas", "safetensors", "sklearn", "torch"},
    ),
    "predict": (
        {"common", "cache", "extract", "train", "predict"},
        {"huggingface_hub", "joblib", "matplotlib", "starlette", "torch", "uvicorn"},
    ),
    "synthetic": ({"common", "cache", "manifests", "synthetic"}, {"joblib", "pretty_midi", "scipy", "soundfile"}),
}
PACKAGE = {"manifest": "manifests"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "m2e" else {node.module}
            found |= {name for name in names if name}
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_keep_to_the_layers(package: str) -> None:
    ours, heavy = ALLOWED[package]
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in imports(path):
            if name.startswith("m2e."):
                below = name.removeprefix("m2e.")
                assert any(below == layer or below.startswith(f"{layer}.") for layer in ours), f"{path}: {name}"
            else:
                top = name.partition(".")[0]
                assert top in heavy | FREE | set(sys.stdlib_module_names), f"{path}: {name}"


def test_no_import_leads_back() -> None:
    """Neither those at the head of a file nor those in functions; for types alone they may."""
    modules = {module_name(path): path for package in ALLOWED for path in (ROOT / package).rglob("*.py")}
    graph = TopologicalSorter({name: needed(path) & modules.keys() - {name} for name, path in modules.items()})
    graph.prepare()  # raises CycleError


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("m2e", *parts)).removesuffix(".__init__")


def needed(path: Path) -> set[str]:
    """What a file imports to run."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.ImportFrom) and child.module:
                found.update({child.module, *(f"{child.module}.{alias.name}" for alias in child.names)})
            walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("command", ["manifest", "extract", "train", "predict", "cache"])
def test_help_teaches_and_is_quick(command: str) -> None:
    code = f"from m2e.{PACKAGE.get(command, command)}.cli import main; main(['--help'])"
    started = time.process_time()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.process_time() - started < 5
    assert "Example" in result.stdout
    assert f"m2e-{command} " in result.stdout


@pytest.mark.parametrize("command", ["manifest", "extract", "train", "predict", "cache"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        f"import sys, m2e.{PACKAGE.get(command, command)}.cli\n"
        "heavy = {'torch', 'transformers', 'librosa', 'music21', 'pandas', 'sklearn', 'scipy', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_trainer_never_loads_audio_or_encoder_libraries() -> None:
    modules = [module_name(path) for path in (ROOT / "train").rglob("*.py")]
    code = (
        f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n"
        "loaded = {'librosa', 'transformers', 'music21', 'pandas', 'soundfile', 'm2e.extract'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
