"""What does not fit between the sections of a config is told with its key."""

from pathlib import Path
from typing import Any

import pytest

from recmoe.config import config_from_dict, dump_config
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig, experiment_from_json, load_experiment

VALUES: dict[str, Any] = {
    "name": "shop",
    "data": {"train": "train.parquet", "validation": "validation.parquet"},
    "inputs": {"features": {"user": {"kind": "id", "side": "user"}, "price": {"kind": "numeric", "column": "cost"}}},
    "tasks": {
        "ctr": {"kind": "binary", "label": "click"},
        "cvr": {"kind": "binary", "label": "purchase", "space": "click"},
    },
}


def config(*overrides: str) -> ExperimentConfig:
    return config_from_dict(ExperimentConfig, VALUES, overrides=overrides)


def test_sections_that_fit_have_no_problems() -> None:
    found = config("training.early_stopping={metric: 'cvr.auc[click]'}")

    assert list(found.problems()) == []
    assert found.task_set().names == ("ctr", "cvr")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.cvr.label=user", r"inputs\.features\.user: column user is a label; a feature must not be one"),
        ("tasks.cvr.label=cost", r"inputs\.features\.price: column cost is a label; a feature must not be one"),
        (
            "training.early_stopping={metric: 'cvr.auc[clik]'}",
            r"training\.early_stopping\.metric: no such metric: cvr\.auc\[clik\], did you mean cvr\.auc\[click\]\?",
        ),
        (
            "training.early_stopping={metric: 'ctr.gauc[all]'}",
            # Lists of candidates are known by inputs.group alone.
            r"training\.early_stopping\.metric: no such metric: ctr\.gauc\[all\]",
        ),
        (
            "training.early_stopping={metric: '#'}",
            r"no such metric: #\. There are: score, ctr\.auc\[all\], ",
        ),
        (
            "training.early_stopping={metric: 'ctr.calibration[all]'}",
            r"ctr\.calibration\[all\] is best at 1, neither high nor low; choose one of ",
        ),
        ("ranking.scores={best: ctrr}", r"ranking\.scores\.best: .*ctrr"),
        ("tasks.cvr.space=clicks", r"tasks\.cvr\.space: clicks is not the label of a binary task"),
    ],
)
def test_sections_that_do_not_fit_name_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(override)


def test_early_stopping_needs_a_validation_split() -> None:
    with pytest.raises(ConfigError, match=r"data\.validation: early stopping needs a validation split"):
        config("training.early_stopping={metric: 'ctr.auc[all]'}", "data.validation=[]")


def test_config_from_a_file_is_the_config_from_its_json(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(
        """\
name: shop
data: {train: train.parquet}
inputs: {features: {user: {kind: id}}}
tasks: {ctr: {kind: binary, label: click}}
"""
    )

    loaded = load_experiment(path, ["training.epochs=3"])

    assert loaded.training.epochs == 3
    assert experiment_from_json(loaded.model_dump_json()) == loaded
    assert config_from_dict(ExperimentConfig, dump_config(loaded)) == loaded


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{"])
def test_stored_config_that_is_no_object_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^old/config\.json: .*; copy the file again$"):
        experiment_from_json(text, source="old/config.json")
