"""Imports go down only, heavy packages come in by one door each, and nothing imports in circles."""

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top to the bottom; a line imports from lines below its own.
LAYERS = (
    ("cli",),
    ("face",),
    ("doctor",),
    ("runs",),
    ("baselines", "growth", "onboarding", "planning"),
    ("experiment",),
    ("registry",),
    ("ranking",),
    ("export",),
    ("training",),
    ("evaluation",),
    ("pytest_plugin",),
    ("conformance",),
    ("model",),
    ("architectures",),
    ("balancing",),
    ("data", "embeddings", "moe", "tasks", "tracking"),
    ("features",),
    ("sequence",),
    ("client",),
    (
        "axes",
        "config",
        "config_source",
        "config_yaml",
        "errors",
        "flat_table",
        "json_document",
        "machine",
        "plugins",
        "products",
        "stack",
        "workers",
    ),
)
SIBLINGS = {"data", "embeddings", "moe", "tasks", "tracking"}
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

DOORS = {
    "mlflow": ("recmoe/tracking/", "recmoe/registry/"),
    "ray": ("pipelines/", "serving/ray_app.py"),
    "optuna": ("pipelines/tuning/",),
    "fastapi": ("serving/",),
    "grpc": ("serving/",),
    "google": ("serving/",),
    "redis": ("recmoe/ranking/items/redis_client.py",),
    "opentelemetry": ("serving/observability/tracing.py",),
    "lightgbm": ("recmoe/baselines/",),
    "sklearn": ("recmoe/baselines/",),
    "torchjd": ("recmoe/balancing/",),
    "captum": ("recmoe/evaluation/gate_features.py",),
    "torchrec": ("recmoe/embeddings/", "recmoe/training/checkpoint.py", "recmoe/export/unshard.py"),
    "fbgemm_gpu": ("recmoe/embeddings/", "recmoe/training/checkpoint.py", "recmoe/export/unshard.py"),
}


@dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    file: str
    line: int
    module: str
    is_at_top: bool
    """Whether importing the file imports it."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@functools.cache
def imports_of(root: Path) -> list[Import]:
    return list(read_imports(root))


def read_imports(root: Path) -> Iterator[Import]:
    for path in sorted(file for folder in ("recmoe", "serving", "pipelines") for file in (root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lazy = {id(node) for body in lazy_bodies(tree) for node in ast.walk(body)}
        for node in ast.walk(tree):
            for module in imported(node, path.relative_to(root)):
                assert isinstance(node, ast.Import | ast.ImportFrom)
                yield Import(str(path.relative_to(root)), node.lineno, module, id(node) not in lazy)


def lazy_bodies(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if is_for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(node: ast.AST, file: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        package = file.parent.parts[: len(file.parent.parts) - node.level + 1] if node.level else ()
        module = ".".join([*package, *([node.module] if node.module else [])])
        # `from recmoe import config` names a module, `from recmoe.config import Config` does not.
        return [f"{module}.{alias.name}" for alias in node.names] if module in ("recmoe", "") else [module]
    return []


def part_of(dotted: str) -> str:
    """The box of the picture that a module of recmoe belongs to."""
    part = dotted.split(".")[1] if "." in dotted else ""
    return "" if part == "__version__" else part


def module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def layer_faults(root: Path) -> list[str]:
    faults = []
    for found in imports_of(root):
        home, target = found.file.split("/")[0], found.module.split(".")[0]
        if (
            target in ("serving", "pipelines")
            and home != target
            and module_name(found.file).split(".")[:2] != ["recmoe", "cli"]
        ):
            faults.append(f"{found}: only the command line may")
        if home == "serving" and found.module.startswith("recmoe.training"):
            faults.append(f"{found}: a server does not train")
        if home != "recmoe" or target != "recmoe":
            continue
        above, below = part_of(module_name(found.file)), part_of(found.module)
        if not above or not below:
            continue
        unknown = [part for part in (above, below) if part not in LEVEL]
        if unknown:
            faults.append(f"{found}: {unknown[0]} has no layer; add it to LAYERS")
        elif LEVEL[above] > LEVEL[below]:
            faults.append(f"{found}: {below} lies above {above}")
        elif above != below and above in SIBLINGS and below in SIBLINGS:
            faults.append(f"{found}: {above} and {below} are siblings")
    return faults


def door_faults(root: Path) -> list[str]:
    return [
        f"{found}: {package} comes in by {', '.join(DOORS[package])}"
        for found in imports_of(root)
        if (package := found.module.split(".")[0]) in DOORS and not found.file.startswith(DOORS[package])
    ]


def test_imports_go_down_only() -> None:
    faults = layer_faults(ROOT)

    assert not faults, "\n".join(faults)


def test_heavy_packages_come_in_by_their_doors() -> None:
    faults = door_faults(ROOT)

    assert not faults, "\n".join(faults)


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_name(found.file) for found in imports_of(ROOT)}
    graph: dict[str, set[str]] = {}
    for found in imports_of(ROOT):
        if found.is_at_top and found.module in modules and found.module != module_name(found.file):
            graph.setdefault(module_name(found.file), set()).add(found.module)

    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            "recmoe/features/a.py",
            "import os\nfrom recmoe.model import X\n",
            "2 imports recmoe.model: model lies above features",
        ),
        (
            "recmoe/moe/a.py",
            "def f():\n    import recmoe.tasks.tower\n",
            "2 imports recmoe.tasks.tower: moe and tasks are siblings",
        ),
        ("recmoe/config.py", "from . import model\n", "1 imports recmoe.model: model lies above config"),
        (
            "recmoe/helpers.py",
            "import recmoe.errors\n",
            "1 imports recmoe.errors: helpers has no layer; add it to LAYERS",
        ),
        ("recmoe/worker.py", "import serving.app\n", "1 imports serving.app: only the command line may"),
        (
            "serving/app.py",
            "from recmoe.training.loop import X\n",
            "1 imports recmoe.training.loop: a server does not train",
        ),
    ],
)
def test_import_that_goes_up_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)

    assert layer_faults(tmp_path) == [f"{file}:{fault}"]


def test_heavy_package_past_its_door_is_found(tmp_path: Path) -> None:
    (tmp_path / "recmoe/training").mkdir(parents=True)
    (tmp_path / "recmoe/training/loop.py").write_text("\nfrom mlflow.entities import Run\n")
    (tmp_path / "recmoe/training/checkpoint.py").write_text("import torchrec\n")

    assert door_faults(tmp_path) == [
        "recmoe/training/loop.py:2 imports mlflow.entities: mlflow comes in by recmoe/tracking/, recmoe/registry/"
    ]


def test_importing_the_server_loads_neither_ray_nor_mlflow_nor_training() -> None:
    code = "import sys, serving.app; print([m for m in ('ray', 'mlflow', 'recmoe.training') if m in sys.modules])"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert (run.stdout.strip(), run.returncode) == ("[]", 0), run.stderr


@pytest.mark.slow
def test_everything_but_the_sharded_tables_imports_without_torchrec() -> None:
    needing = {found.file for found in imports_of(ROOT) if found.is_at_top and found.module.split(".")[0] in DOORS}
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "recmoe").rglob("*.py"))]
    modules = [module_name(file) for file in files if file not in needing]
    code = (
        "import sys, importlib\n"
        "sys.modules.update(dict.fromkeys(('torchrec', 'fbgemm_gpu', 'ray', 'mlflow', 'fastapi')))\n"
        f"for name in {modules!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as error: print(name, error)\n"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert (run.stdout, run.returncode) == ("", 0), run.stderr
