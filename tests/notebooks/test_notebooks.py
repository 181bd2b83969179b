"""Every notebook runs from top to bottom, is committed without outputs and defines nothing."""

import ast
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from recmoe.data.synthetic import write_synthetic
from recmoe.experiment import load_experiment
from recmoe.registry.registry import Registry
from recmoe.runs.train import train_run

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SHOWN = {"evaluate_a_model": ("<svg", 4), "train_a_model": ("<td>auc</td>", 3)}
"""What the outputs of a notebook hold, and how many of them at least."""
SMALL = (
    "training.epochs=1",
    "training.batch_size=128",
    "tables.backend=plain",
    "model.architecture={kind: ple, num_levels: 2, num_shared_experts: 1, num_task_experts: 1, expert_hidden: [16]}",
    "evaluation.num_resamples=20",
    "evaluation.baselines=[]",
    "tracking={kind: none}",
)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture
def registered(mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model in a registry, named by the environment that notebooks read."""
    config = load_experiment(write_synthetic(mlflow_folder.parent / "log", num_rows=4000).config, SMALL)
    result = train_run(config, mlflow_folder / "run", resume=False, is_quiet=True)
    registry = Registry.connect(folder=mlflow_folder)
    registry.register(result.folder.bundle, name="small")
    registry.promote("small", "1")
    monkeypatch.setenv("RECMOE_MODEL", "models:/small@champion")
    monkeypatch.setenv("RECMOE_RUNS", str(mlflow_folder))
    monkeypatch.setenv("RECMOE_ROWS", "3000")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("registered")
def test_notebook_runs_and_prints_no_warning(path: Path, tmp_path: Path) -> None:
    notebook = read(path)

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()

    nbformat.write(notebook, tmp_path / path.name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.text for output in outputs if output.output_type == "stream"] == []
    text, num_least = SHOWN[path.stem]
    assert sum(text in str(output.get("data", {})) for output in outputs) >= num_least


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]

    assert cells
    assert [cell for cell in cells if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defines_nothing(path: Path) -> None:
    source = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")

    found = [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
    ]

    assert found == []
