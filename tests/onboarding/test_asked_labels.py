"""Outcomes that the user names, and columns that the model must not read."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError
from recmoe.experiment import load_experiment
from recmoe.onboarding.starter import StarterConfig
from recmoe.tasks.binary import BinaryTaskConfig

NUM_ROWS = 2000

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]


@pytest.fixture
def survey() -> pa.Table:
    """Answers without anything that is called like an outcome."""
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "age": rng.integers(18, 80, NUM_ROWS),
            "city": np.array(["Rome", "Lima", "Oslo"])[rng.integers(0, 3, NUM_ROWS)],
            "family": np.array(["single", "married", "divorced"])[rng.integers(0, 3, NUM_ROWS)],
            "paid": rng.lognormal(3, 1, NUM_ROWS),
            "height": np.round(rng.normal(170, 10, NUM_ROWS)),
            "income": np.array(["- 50000.", "50000+."])[(rng.random(NUM_ROWS) < 0.1).astype(np.int64)],
        }
    )


def labels_of(starter: StarterConfig) -> dict[str, object]:
    """By task: the values or threshold that count as 1; the kind of a task that is not binary."""
    assert starter.path is not None
    found: dict[str, object] = {}
    for name, task in load_experiment(starter.path).tasks.items():
        positive = task.positive if isinstance(task, BinaryTaskConfig) else None
        found[name] = task.kind if positive is None else positive.values or positive.at_least or positive.above
    return found


def test_last_column_of_two_values_is_the_label_where_nothing_else_is(survey: pa.Table, start: Start) -> None:
    starter = start(survey)

    assert labels_of(starter) == {"income": ("50000+.",)}
    assert "the rarer of 50000+. and - 50000.; is it the right one?" in starter.text


def test_outcomes_and_columns_are_taken_as_asked(survey: pa.Table, start: Start) -> None:
    asked = ["income=50000+.", "family=single", "paid>=40", "paid>90", "age"]

    starter = start(survey, labels=asked, leave_out=["city"])

    assert labels_of(starter) == {
        "income": ("50000+.",),
        "family": ("single",),
        "paid": 40,
        "paid_90_0": 90,
        "age": "regression",
    }
    assert starter.roles.left_out["city"] == "left out as asked"


def test_asked_outcomes_stand_beside_those_that_are_found(plain_log: MakeLog, start: Start) -> None:
    starter = start(plain_log(), labels=["device=phone"])

    assert set(labels_of(starter)) == {"device", "click", "purchase", "click_and_purchase"}


@pytest.fixture
def unnamed() -> pa.Table:
    """A log without known names: ``ee`` is counted within ``zz``, which happens or not; ``vip`` is known before."""
    rng = np.random.default_rng(0)
    zz = rng.random(NUM_ROWS) < 0.3
    return pa.table(
        {
            "vip": rng.integers(0, 2, NUM_ROWS),
            "height": np.round(rng.normal(170, 10, NUM_ROWS)),
            "ee": np.where(zz, rng.integers(0, 4, NUM_ROWS), 0),
            "qq": pa.array(rng.random(NUM_ROWS), mask=~zz),
            "zz": zz.astype(np.int64),
            "end": rng.normal(0, 1, NUM_ROWS),
        }
    )


def features_of(starter: StarterConfig) -> set[str]:
    assert starter.path is not None
    return set(load_experiment(starter.path).inputs.features)


def test_outcome_before_the_asked_one_is_a_task(unnamed: pa.Table, start: Start) -> None:
    starter = start(unnamed, labels=["ee>0"])

    assert labels_of(starter) == {"ee": 0.0, "zz": "binary", "qq": "regression"}
    assert features_of(starter) == {"vip", "height", "end"}
    assert "known before the list is shown? then make it a feature" in starter.text


def test_what_may_be_an_outcome_beside_the_asked_one_is_left_out_and_told(unnamed: pa.Table, start: Start) -> None:
    starter = start(unnamed, labels=["height>170"])

    assert labels_of(starter) == {"height": 170.0}
    assert features_of(starter) == {"vip", "end"}
    assert starter.warnings == [
        "left out: zz: an outcome too? if it is known before the list is shown, add the feature zz: {kind: id}",
        "left out: ee: filled only where zz is 1, which may be an outcome",
        "left out: qq: filled only where zz is 1, which may be an outcome",
    ]
    assert "  #   zz: an outcome too? " in starter.text


def test_state_and_property_beside_the_asked_outcome_are_features(unnamed: pa.Table, start: Start) -> None:
    starter = start(unnamed.drop_columns(["zz", "qq"]), labels=["ee>0"])

    assert features_of(starter) == {"vip", "height", "end"}
    assert starter.warnings == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["incom"]}, "--label incom: the log has no such column, did you mean income?"),
        ({"labels": ["zzz=1"]}, "--label zzz: the log has no such column, there are age, city, family, paid, height"),
        ({"labels": ["family=widow"]}, "--label family=widow: the value does not occur; it holds .*single"),
        ({"labels": ["family"]}, "--label family: say which value counts as 1, as in family=VALUE; it holds .*single"),
        ({"labels": ["family>=2"]}, "--label family: string cannot be compared; give a value, it holds"),
        ({"labels": ["paid>=much"]}, "--label paid>=much: much is no number to compare with"),
        ({"labels": ["paid=much"]}, "--label paid=much: much is no number; it holds .* different values"),
        ({"leave_out": ["town"]}, "--leave-out town: the log has no such column, there are age"),
        ({"leave_out": ["aus land"]}, r"--leave-out aus land: the log has no such column, did you mean 'aus\\nland'\?"),
    ],
)
def test_what_cannot_be_done_is_named(
    survey: pa.Table, start: Start, options: dict[str, list[str]], message: str
) -> None:
    survey = survey.append_column("aus\nland", survey["paid"])

    with pytest.raises(DataError, match=message):
        start(survey, **options)
