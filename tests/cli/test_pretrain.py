"""``recmoe pretrain``, and a training that begins from what it leaves."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recmoe import load_experiment, train
from recmoe.cli import app
from recmoe.errors import ConfigError

SMALL = (
    "training.epochs=1",
    "training.batch_size=256",
    "tables.backend=plain",
    "evaluation.num_resamples=0",
    "evaluation.baselines=[]",
    "tracking={kind: none}",
)


def recmoe(*arguments: str) -> str:
    """Standard output of a command, in this process."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic log whose rows have no labels in one folder, and some of them labels in another."""
    folder = tmp_path_factory.mktemp("pretrain")
    recmoe("data", "synthetic", "--to", str(folder / "log"), "--rows", "4000")
    (folder / "unlabelled").mkdir()
    for split in ("train", "validation", "test"):
        rows = pq.read_table(folder / "log" / f"{split}.parquet")
        unlabelled = rows.drop_columns(["click", "purchase", "watch_s"])
        pq.write_table(unlabelled, folder / "unlabelled" / f"{split}.parquet")
    pq.write_table(pq.read_table(folder / "log/train.parquet").slice(0, 300), folder / "labelled.parquet")
    return folder


def test_pretraining_needs_no_labels_and_a_training_begins_from_it(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(log)
    unlabelled = [f"data.{split}=unlabelled/{split}.parquet" for split in ("train", "validation", "test")]

    printed = recmoe("pretrain", "log/config.yaml", *SMALL, *unlabelled, "model.pretraining.share=0.3")
    after = recmoe(
        "train",
        "log/config.yaml",
        *SMALL,
        "data.train=labelled.parquet",
        "--warm-start",
        "runs/synthetic-pretrained",
    )

    assert "hidden ids of the test split" in printed
    for feature in ("user_id", "plan", "device", "hour", "item_id", "category", "brand"):
        assert f"\n{feature}  " in printed
    assert "next     recmoe train log/config.yaml --warm-start runs/synthetic-pretrained" in printed
    config = json.loads((log / "runs/synthetic-pretrained/config.json").read_text())
    assert config["model"]["pretraining"] == {"share": 0.3, "features": [], "max_classes": 1024}
    assert "went on from runs/synthetic-pretrained" in after
    assert (log / "runs/synthetic/bundle").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("train", "log/config.yaml"),
        ("tune", "log/config.yaml", "--trials", "1"),
        ("daily", "log/config.yaml", "--days", "log", "--run-dir", "runs/daily"),
    ],
    ids=lambda command: command[0],
)
def test_what_trains_tasks_refuses_a_pretraining(
    command: tuple[str, ...], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(log)

    with pytest.raises(ConfigError, match=r"model\.pretraining is set: such a run reads no labels and leaves no bund"):
        recmoe(*command, "model.pretraining={}")


def test_public_face_refuses_a_pretraining(log: Path, tmp_path: Path) -> None:
    config = load_experiment(log / "log/config.yaml", ["model.pretraining={}", *SMALL])

    with pytest.raises(ConfigError, match="give the config to recmoe pretrain, or drop the section"):
        train(config, tmp_path / "run")


def test_json_holds_the_report(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(log)

    printed = recmoe(
        "pretrain",
        "log/config.yaml",
        *SMALL,
        "model.pretraining.features=[brand]",
        "--run-dir",
        str(tmp_path / "run"),
        "--json",
    )

    found = json.loads(printed[printed.index("{") :])
    assert (found["split"], list(found["features"]), found["is_interrupted"]) == ("test", ["brand"], False)
    assert found["score"] == found["features"]["brand"]["saved"]
