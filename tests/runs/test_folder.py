import json
from pathlib import Path
from typing import Any

import pytest

from recmoe.config import config_from_dict, dump_config
from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder, emptied, write_atomically

CONFIG: dict[str, Any] = {
    "name": "shop",
    "seed": 1,
    "data": {"train": ["a.parquet"], "shuffle_rows": 100, "cache_dir": None},
    "model": {"architecture": {"kind": "mmoe", "num_experts": 3}},
    "training": {"epochs": 1, "checkpoint_every": 10, "keep_checkpoints": 2, "timeout_s": 60.0},
    "tracking": {"kind": "none"},
}


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {name: {**CONFIG[name], **sections[name]} if name in sections else CONFIG[name] for name in CONFIG}


@pytest.fixture
def started(tmp_path: Path) -> RunFolder:
    """A run with a checkpoint."""
    folder = RunFolder(tmp_path / "runs" / "shop")
    folder.start(CONFIG, resume=False)
    (folder.checkpoints / "step-00000010").mkdir(parents=True)
    return folder


def test_new_run_claims_its_folder_and_keeps_its_config(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "shop")

    folder.start(CONFIG, resume=False)

    assert json.loads(folder.config.read_text()) == CONFIG
    assert folder.state == {}


def test_resume_of_nothing_starts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "shop")

    folder.start(CONFIG, resume=True)

    assert folder.config.exists()


def test_folder_with_a_run_is_refused_without_resume(started: RunFolder) -> None:
    with pytest.raises(TrainingError, match=r"shop holds a run already; go on with --resume or choose another"):
        started.start(CONFIG, resume=False)


def test_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(TrainingError, match=r"is not empty and holds no run; choose another --run-dir"):
        RunFolder(tmp_path).start(CONFIG, resume=True)


def test_resume_with_another_config_names_every_key_that_differs(started: RunFolder) -> None:
    other = changed(
        data={"shuffle_rows": 200},
        model={"architecture": {"kind": "ple"}},
        training={"epochs": 2},
    )
    other["seed"] = 2

    with pytest.raises(
        TrainingError,
        match=r"was started with another config: data\.shuffle_rows, model\.architecture\.kind, "
        r"model\.architecture\.num_experts, seed, training\.epochs; resume with the same values, or start afresh",
    ):
        started.start(other, resume=True)

    assert json.loads(started.config.read_text()) == CONFIG


def test_log1p_regression_of_an_earlier_version_is_resumed_by_saying_that_it_predicts_the_median(
    started: RunFolder,
) -> None:
    watch = {"kind": "regression", "transform": "log1p"}
    write_atomically(started.config, json.dumps({**CONFIG, "tasks": {"watch": watch}}))

    with pytest.raises(
        TrainingError, match=r"started with another config: tasks\.watch\.predicts; resume with the same"
    ):
        started.start({**CONFIG, "tasks": {"watch": {**watch, "predicts": None}}}, resume=True)
    started.start({**CONFIG, "tasks": {"watch": {**watch, "predicts": "median"}}}, resume=True)


def test_resume_may_change_what_does_not_change_the_numbers(started: RunFolder) -> None:
    other = changed(
        data={"cache_dir": "/tmp"},
        training={"checkpoint_every": 5, "keep_checkpoints": 1, "timeout_s": 5.0},
        tracking={"kind": "mlflow", "uri": "sqlite:///x.db"},
    )

    started.start(other, resume=True)


def test_state_is_added_to(started: RunFolder) -> None:
    started.update_state(status="running", step=1)
    started.update_state(step=2)

    assert started.state == {"status": "running", "step": 2}
    assert [path.name for path in started.root.iterdir() if path.name.startswith(".")] == []


def test_curves_of_steps_to_be_done_again_are_dropped(started: RunFolder) -> None:
    for step in (10, 20, 30):
        started.log(step, {"loss": 1.0 / step})
    with started.metrics.open("a") as file:
        # A process was killed while it wrote.
        file.write('{"step": 40, "lo')

    started.forget_after(20)
    started.log(30, {"loss": 0.5})

    lines = [json.loads(line) for line in started.metrics.read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 0.1}, {"step": 20, "loss": 0.05}, {"step": 30, "loss": 0.5}]


def test_curves_that_stay_are_not_written_again(started: RunFolder) -> None:
    started.forget_after(0)
    started.log(10, {"loss": 1.0})
    inode = started.metrics.stat().st_ino

    started.forget_after(10)

    assert started.metrics.stat().st_ino == inode


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with path.open() as before:
        write_atomically(path, "new")

        assert before.read() == "old"
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "sh', r"config\.json is damaged: .*; put it back from a copy, or train again in another --run-dir"),
        ("[]", r"config\.json is damaged: it holds no object; .*train again in another --run-dir"),
    ],
)
def test_damaged_config_is_named(started: RunFolder, text: str, message: str) -> None:
    started.config.write_text(text)

    with pytest.raises(TrainingError, match=message):
        started.start(CONFIG, resume=True)


def test_run_without_a_checkpoint_takes_another_config(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "shop")
    folder.start(CONFIG, resume=False)
    folder.encoder.mkdir()

    folder.start(changed(training={"epochs": 2}), resume=True)

    assert json.loads(folder.config.read_text())["training"]["epochs"] == 2
    assert folder.encoder.exists()

    folder.start(changed(data={"train": ["b.parquet"]}), resume=True)

    assert not folder.encoder.exists()


def test_prepared_folder_need_not_be_resumed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "shop")
    folder.start(CONFIG, resume=False)
    folder.update_state(status="prepared")

    folder.start(CONFIG, resume=False)
    folder.update_state(status="running")

    with pytest.raises(TrainingError, match="holds a run already; go on with --resume"):
        folder.start(CONFIG, resume=False)


def test_emptied_folder_is_gone_whatever_was_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)

    with emptied(tmp_path / "a") as folder:
        before = list(folder.iterdir())
        (folder / "c").write_text("")

    assert before == []
    assert not folder.exists()


def test_run_of_an_earlier_version_is_resumed_where_newer_keys_have_their_defaults(started: RunFolder) -> None:
    config = dump_config(
        config_from_dict(
            ExperimentConfig,
            {
                "name": "shop",
                "data": {"train": "log.parquet"},
                "inputs": {"features": {"user": {"kind": "id"}}},
                "tasks": {"ctr": {"kind": "binary", "label": "click"}},
            },
        )
    )
    earlier = json.loads(json.dumps(config))
    del earlier["model"]["groups"], earlier["model"]["architecture"]["expert"]
    write_atomically(started.config, json.dumps(earlier))
    grouped = {**config, "model": {**config["model"], "groups": {"who": ["user"]}}}

    started.start(config, resume=True)

    with pytest.raises(TrainingError, match=r"started with another config: model\.groups\.who; resume"):
        started.start(grouped, resume=True)
