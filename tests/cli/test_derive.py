"""One model from another by the command line: distil both ways, upcycle, prune, and register what comes out."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.export.bundle import ModelBundle
from recmoe.registry.registry import Registry

pytestmark = [
    pytest.mark.slow,
    # MLflow's own code, at first use.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

SMALL = (
    "training.epochs=1",
    "training.batch_size=256",
    "tables.backend=plain",
    "evaluation.num_resamples=20",
    "evaluation.baselines=[]",
    "tracking.system_metrics=false",
)
MMOE = "model.architecture={kind: mmoe, num_experts: 4, expert_hidden: [32, 16]}"
DENSE = "model.architecture={kind: shared_bottom, hidden: [32, 16]}"


def recmoe(folder: Path, *arguments: str) -> str:
    """Standard output of a command, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a synthetic log, and a trained mixture that is registered as version 1 of shop."""
    folder = tmp_path_factory.mktemp("derive")
    recmoe(folder, "data", "synthetic", "--to", "log", "--rows", "4000")
    recmoe(folder, "train", "log/config.yaml", *SMALL, MMOE, "--run-dir", "runs/mixture")
    recmoe(folder, "register", "runs/mixture", "--name", "shop")
    return folder


def tags_of(folder: Path, version: str) -> dict[str, str]:
    registry = Registry.connect(f"sqlite:///{folder}/runs/mlflow.db", folder=folder / "runs")
    tags: dict[str, str] = registry._client.get_model_version("shop", version).tags
    return tags


def cost_of(printed: str) -> dict[str, Any]:
    cost: dict[str, Any] = json.loads(printed[printed.index("{") :])["cost"]
    return cost


def test_registered_mixture_is_distilled_into_a_dense_model_that_is_registered_in_turn(folder: Path) -> None:
    printed = recmoe(folder, "distil", "models:/shop/1", "log/config.yaml", *SMALL, DENSE, "--run-dir", "runs/student")
    recmoe(folder, "register", "runs/student", "--name", "shop")

    assert "distil from models:/shop/1 (digest" in printed
    for line in ("task.metric[space]", "ctr.auc[all]", "parameters without tables", "FLOPs per row", "ms to rank 200"):
        assert line in printed
    assert "next     recmoe register runs/student" in printed
    tags = tags_of(folder, "2")
    assert (tags["recmoe.made_by"], tags["recmoe.made_from"]) == ("distil", "models:/shop/1")
    assert tags["recmoe.made_from_digest"] == ModelBundle.load(folder / "runs/mixture/bundle").digest
    assert not {"recmoe.made_by", "recmoe.made_from"} & set(tags_of(folder, "1"))


def test_dense_model_is_upcycled_and_distilled_into_a_mixture(folder: Path) -> None:
    recmoe(folder, "train", "log/config.yaml", *SMALL, DENSE, "--run-dir", "runs/dense")

    made = (
        recmoe(folder, command, "runs/dense", "log/config.yaml", *SMALL, MMOE, "--run-dir", f"runs/{command}", "--json")
        for command in ("upcycle", "distil")
    )

    for printed, command in zip(made, ("upcycle", "distil"), strict=True):
        cost = cost_of(printed)
        assert cost["lineage"]["made_by"] == command
        assert cost["after"]["flops_per_row"] > cost["before"]["flops_per_row"]
        assert {task["verdict"] for task in cost["tasks"]} <= {"better", "as good", "worse", "unknown"}
    start = json.loads((folder / "runs/upcycle/warm_start.json").read_text())
    assert start["largest_difference"] < 1e-6


def test_least_used_experts_are_taken_out_of_a_version(folder: Path) -> None:
    printed = recmoe(folder, "prune-experts", "models:/shop/1", "--keep", "2", "--to", "bundles/two")

    assert "least used on the validation split, and left out:" in printed
    assert printed.count("shared.") == 2
    assert "prune-experts from models:/shop/1 (digest" in printed
    bundle = ModelBundle.load(folder / "bundles/two")
    assert bundle.config["model"]["architecture"]["num_experts"] == 2
    described = json.loads(
        recmoe(folder, "prune-experts", "models:/shop/1", "--keep", "1", "--to", "bundles/one", "--json")
    )
    assert len(described["dropped"]["level 0"]) == 3
    assert described["merged_into"] == {}
    assert described["cost"]["after"]["dense_parameters"] < described["cost"]["before"]["dense_parameters"]


def test_experts_of_a_version_are_merged(folder: Path) -> None:
    printed = recmoe(folder, "prune-experts", "models:/shop/1", "--keep", "2", "--merge", "--to", "bundles/merged")

    assert "least used on the validation split, and merged:" in printed
    assert printed.count("shared.") == 4
    assert ModelBundle.load(folder / "bundles/merged").config["model"]["architecture"]["num_experts"] == 2


def test_dense_model_is_split_into_experts(folder: Path) -> None:
    recmoe(folder, "train", "log/config.yaml", *SMALL, DENSE, "--run-dir", "runs/to-split")

    printed = recmoe(folder, "moefy", "runs/to-split", "--experts", "8", "--use", "2", "--to", "bundles/split")

    assert "2 of 8 experts hold" in printed
    assert "moefy from runs/to-split (digest" in printed
    described = json.loads(
        recmoe(folder, "moefy", "runs/to-split", "--experts", "8", "--use", "8", "--to", "bundles/whole", "--json")
    )
    assert described["captured"] == pytest.approx(1.0)
    assert all(abs(task["advantage"]) < 1e-6 for task in described["cost"]["tasks"] if task["advantage"] is not None)


def test_tables_of_a_version_are_quantized(folder: Path) -> None:
    printed = recmoe(folder, "quantize", "models:/shop/1", "--tables", "bf16", "--to", "bundles/bf16")
    described = recmoe(folder, "quantize", "models:/shop/1", "--tables", "int8", "--to", "bundles/int8", "--json")

    assert "quantize from models:/shop/1 (digest" in printed
    assert "bytes of tables" in printed
    assert "next     recmoe register bundles/bf16" in printed
    cost = json.loads(described)["cost"]
    assert cost["after"]["table_bytes"] < cost["before"]["table_bytes"]
    recmoe(folder, "register", "bundles/int8", "--name", "small")
