"""init never makes a feature of an outcome, however it is written and whatever it is called."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.onboarding.starter import StarterConfig
from recmoe.tasks.binary import BinaryTaskConfig

NUM_ROWS = 2000

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]


def config_of(starter: StarterConfig) -> ExperimentConfig:
    assert starter.path is not None
    return load_experiment(starter.path)


def features_of(starter: StarterConfig) -> set[str]:
    return {feature.column for feature in starter.roles.features}


def binary_task(starter: StarterConfig, column: str) -> BinaryTaskConfig:
    (task,) = (
        task
        for task in config_of(starter).tasks.values()
        if isinstance(task, BinaryTaskConfig) and task.label == column
    )
    return task


@pytest.mark.parametrize(
    ("no", "yes", "positive"),
    [
        ("0", "1", None),
        ("false", "true", None),
        ("N", "Y", ("Y",)),
        ("no", "yes", ("yes",)),
        ("F", "T", ("T",)),
        ("-1", "1", ("1",)),
        (-1, 1, (1.0,)),
        (1, 2, (2.0,)),
        ("none", "clicked", ("clicked",)),
        (False, True, None),
    ],
)
def test_click_of_any_writing_is_a_task(plain_log: MakeLog, start: Start, no: Any, yes: Any, positive: Any) -> None:
    clicks = pc.equal(plain_log()["click"], 1).to_pylist()

    starter = start(plain_log(click=pa.array([yes if click else no for click in clicks])))

    task = binary_task(starter, "click")
    assert (None if task.positive is None else task.positive.values) == positive
    assert "click" not in features_of(starter)


@pytest.mark.parametrize(("no", "yes"), [("N", "Y"), (-1, 1), ("0", "1")])
def test_purchase_lives_within_a_click_of_any_writing(plain_log: MakeLog, start: Start, no: Any, yes: Any) -> None:
    log = plain_log()
    written = {
        name: pa.array([yes if value else no for value in log[name].to_pylist()]) for name in ("click", "purchase")
    }

    starter = start(plain_log(**written))

    assert binary_task(starter, "purchase").space == "click"
    assert "click_and_purchase" in config_of(starter).tasks


def test_count_of_purchases_is_a_task_above_zero(plain_log: MakeLog, start: Start) -> None:
    rng = np.random.default_rng(1)

    starter = start(plain_log(purchase=None, purchases=rng.poisson(0.2, NUM_ROWS)))

    task = binary_task(starter, "purchases")
    assert task.positive is not None
    assert task.positive.above == 0


@pytest.mark.parametrize(
    "name",
    [
        "play_time_ms", "playTime", "watch_time", "duration_watched", "dwell", "dwell_time", "stay_time",
        "comment_stay_time", "view_seconds", "play_duration", "watch_ratio", "time_spent", "read_time", "listen_ms",
        "watch_pct", "completion_rate", "播放时长",
    ],
)  # fmt: skip
def test_time_of_attention_is_an_outcome(plain_log: MakeLog, start: Start, name: str) -> None:
    rng = np.random.default_rng(1)

    starter = start(plain_log(**{name: np.round(rng.lognormal(2, 1, NUM_ROWS), 2)}))

    assert name not in features_of(starter)
    assert name in {label.column for label in starter.roles.labels if label.kind == "regression"}


@pytest.mark.parametrize("name", ["video_duration", "duration_ms", "length", "avg_watch_time"])
def test_length_of_the_item_is_a_feature(plain_log: MakeLog, start: Start, name: str) -> None:
    starter = start(plain_log(**{name: pc.multiply(plain_log()["item_id"], 7)}))

    assert name in features_of(starter)


@pytest.mark.parametrize(("name", "steps", "threshold"), [("overall", 5, 4), ("rating", 5, 4), ("score", 10, 8)])
def test_rating_is_a_value_and_a_threshold(
    plain_log: MakeLog, start: Start, name: str, steps: int, threshold: int
) -> None:
    ratings = np.random.default_rng(1).integers(1, steps + 1, NUM_ROWS)

    starter = start(plain_log(click=None, purchase=None, **{name: ratings.astype(np.float64)}))

    tasks = config_of(starter).tasks
    assert {task_name: task.kind for task_name, task in tasks.items()} == {name: "regression", "like": "binary"}
    like = binary_task(starter, name)
    assert like.positive is not None
    assert like.positive.at_least == threshold


def test_events_of_a_row_called_is_and_has_are_tasks_and_states_are_features(plain_log: MakeLog, start: Start) -> None:
    rng = np.random.default_rng(1)
    events = ("is_like", "is_follow", "is_profile_enter", "long_view", "has_shared", "cbc_is_activate_in_t14")
    flags = {name: (rng.random(NUM_ROWS) < 0.05).astype(np.int64) for name in (*events, "is_new", "is_weekend")}
    of_item = {"is_live": (plain_log()["item_id"].to_numpy() % 2).astype(np.int64)}

    starter = start(plain_log(request_id=None, **flags, **of_item))

    assert {label.column for label in starter.roles.labels} == {"click", "purchase", *events}
    assert features_of(starter) >= {"is_new", "is_weekend", "is_live"}


def test_complements_and_copies_of_outcomes_are_left_out(plain_log: MakeLog, start: Start) -> None:
    click = plain_log()["click"]
    copy = pa.array(["Y" if value else "N" for value in click.to_pylist()])

    starter = start(plain_log(nonclk=pc.subtract(1, click), clk_flag=copy))

    assert starter.roles.left_out["nonclk"] == "1 - click in every row"
    assert starter.roles.left_out["clk_flag"] == "equal to click in every row"


def test_probabilities_of_the_logging_policy_are_left_out(plain_log: MakeLog, start: Start) -> None:
    rng = np.random.default_rng(1)

    starter = start(plain_log(propensity_score=rng.random(NUM_ROWS), pscore=rng.random(NUM_ROWS)))

    assert all(
        "the policy that wrote the log" in starter.roles.left_out[name] for name in ("propensity_score", "pscore")
    )


def test_slices_are_properties(plain_log: MakeLog, start: Start) -> None:
    rng = np.random.default_rng(1)
    flags = {f"flag_{number}": (rng.random(NUM_ROWS) < 0.5).astype(np.int64) for number in range(3)}

    config = config_of(start(plain_log(country=np.array(["CH", "IT", "NO"])[np.arange(NUM_ROWS) % 3], **flags)))

    assert set(config.evaluation.slices) == {"device", "country"}


def test_flags_with_which_a_table_of_features_ends_are_its_outcomes(start: Start) -> None:
    rng = np.random.default_rng(0)
    veteran, income, married = rng.integers(0, 2, (3, NUM_ROWS))
    age = rng.integers(18, 80, NUM_ROWS)

    starter = start(pa.table({"veteran": veteran, "age": age, "income": income, "married": married}))

    assert [label.column for label in starter.roles.labels] == ["income", "married"]
    assert features_of(starter) == {"veteran", "age"}
