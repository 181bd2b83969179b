"""Groups of users: what gates make of them with intervals that cover the truth, and the report's sentences."""

# N rows, V experts

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recmoe.evaluation.by_group import gate_shares, group_routing, group_sentences
from recmoe.evaluation.evaluate import EvaluationConfig, evaluate
from recmoe.evaluation.page import write_report_page
from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.report import GroupRouting, MetricRow, Report
from recmoe.moe.gate_use import GateUse

GATE = "level 0, gate ctr"
CONFIG = EvaluationConfig(slices=("device",), num_resamples=200)


def rows_of(device_N: Sequence[Any], users_N: NDArray[np.int64] | None = None) -> Predictions:
    ones_N1 = np.ones((len(device_N), 1), dtype=np.float32)
    return Predictions(
        task_names=("ctr",),
        predictions_NT=ones_N1 / 2,
        labels_NT=ones_N1,
        weights_NT=ones_N1,
        spaces={"ctr": "all"},
        kinds={"ctr": "binary"},
        groups_N=users_N,
        slices={"device": np.array(device_N, dtype=object)},
    )


def routing_of(shares_NV: NDArray[Any], rows: Predictions, config: EvaluationConfig = CONFIG) -> GroupRouting:
    (one,) = group_routing({GATE: shares_NV.astype(np.float32)}, rows, config=config)
    return one


def test_information_equals_a_sum_by_hand_without_resamples() -> None:
    shares_NV = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.5, 0.5]])

    one = routing_of(shares_NV, rows_of(["phone", "phone", "tv", None]), replace_resamples(0))

    joint = {("phone", 0): 1.4, ("phone", 1): 0.6, ("tv", 0): 0.1, ("tv", 1): 0.9, ("none", 0): 0.5, ("none", 1): 0.5}
    of_group, of_expert = {"phone": 0.5, "tv": 0.25, "none": 0.25}, [0.5, 0.5]
    expected = sum(w / 4 * math.log(w / 4 / (of_group[s] * of_expert[v])) for (s, v), w in joint.items())
    assert (one.gate, one.column, one.num_groups) == (GATE, "device", 3)
    assert one.information == pytest.approx(expected, rel=1e-6)
    assert one.entropy == pytest.approx(math.log(2))
    assert one.low is one.high is None


def replace_resamples(num_resamples: int) -> EvaluationConfig:
    return CONFIG.model_copy(update={"num_resamples": num_resamples})


def drawn(seed: int, *, effect: float, num_users: int = 300, rows_per_user: int = 4) -> tuple[Any, Predictions]:
    """Users of two devices, each with an expert of its own; the device decides about it with some probability."""
    random = np.random.default_rng(seed)
    device_U = random.integers(0, 2, num_users)
    by_device_U = random.random(num_users) < effect
    expert_U = np.where(by_device_U, device_U, random.integers(0, 2, num_users))
    user_N = np.repeat(np.arange(num_users), rows_per_user)
    shares_NV = np.eye(2)[expert_U[user_N]]
    return shares_NV, rows_of([("phone", "tv")[device] for device in device_U[user_N]], user_N)


def true_information(effect: float) -> float:
    """Of two devices and two experts that are equal with probability (1 + effect) / 2."""
    p = (1 + effect) / 2
    return math.log(2) + sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def test_interval_of_an_effect_covers_the_truth_and_leaves_out_zero() -> None:
    found = [routing_of(*drawn(seed, effect=0.6)) for seed in range(20)]

    truth = true_information(0.6)
    covered = [one.low <= truth <= one.high for one in found if one.low is not None and one.high is not None]
    assert sum(covered) >= 16
    assert all(one.low is not None and one.low > 0 for one in found)
    assert np.mean([one.information for one in found]) == pytest.approx(truth, rel=0.1)


def test_groups_that_decide_nothing_are_not_found_though_users_keep_their_experts() -> None:
    found = [routing_of(*drawn(seed, effect=0.0, num_users=60)) for seed in range(20)]
    plugged = [routing_of(*drawn(seed, effect=0.0, num_users=60), replace_resamples(0)) for seed in range(20)]

    assert sum(one.low == 0.0 for one in found) >= 19
    # Chance alone makes the plain sum 1 / (2 · 60) on average.
    assert np.mean([one.information for one in plugged]) == pytest.approx(1 / 120, rel=0.6)
    assert np.mean([one.information for one in found]) < 0.6 * np.mean([one.information for one in plugged])


def test_rows_of_a_user_are_drawn_together() -> None:
    shares_NV, rows = drawn(0, effect=0.6)

    by_user, by_row = routing_of(shares_NV, rows), routing_of(shares_NV, replace(rows, groups_N=None))

    def width(one: GroupRouting) -> float:
        assert one.low is not None
        assert one.high is not None
        return one.high - one.low

    assert width(by_user) > 1.5 * width(by_row)


def test_shares_are_parts_of_what_a_gate_gives_among_the_experts_it_sees() -> None:
    w_BGE = torch.tensor([[[2.0, 0.0, 6.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[1.0] * 3] * 2])
    use = GateUse(
        level=1,
        gates=("ctr", "cvr"),
        experts=("ctr.0", "cvr.0", "shared.0"),
        weights_BGE=w_BGE,
        visible_GE=torch.tensor([[True, False, True], [False, True, False]]),
        sums_to_one=False,
    )

    found = gate_shares([use], 2)

    assert list(found) == ["level 1, gate ctr"]
    assert found["level 1, gate ctr"].tolist() == [[0.25, 0.75], [0.0, 0.0]]


def report_of(routing: tuple[GroupRouting, ...], rows: tuple[MetricRow, ...] = ()) -> Report:
    sliced = MetricRow("ctr", "all", "auc", "device=phone", 0.7, 0.6, 0.8, 90, 30)
    whole = replace(sliced, slice=None, value=0.75)
    return Report((whole, sliced, *rows), num_rows=20, num_resamples=200, routing=routing)


def test_sentences_say_where_a_metric_is_best_and_worst_and_what_groups_decide() -> None:
    tv = MetricRow("ctr", "all", "auc", "device=tv", 0.9, 0.85, 0.95, 90, 30)
    car = replace(tv, slice="device=car", value=None, low=None, high=None, reason="no positive rows")
    decided = GroupRouting(GATE, "device", 2, information=0.1, low=0.05, high=0.15, entropy=0.5)

    few = replace(tv, slice="device=watch", value=1.0, low=1.0, high=1.0, num_positive=2)
    sentences = list(group_sentences(report_of((decided,), (tv, car, few))))

    assert sentences == [
        "ctr.auc[all] is highest for device=tv (0.9000 [0.8500, 0.9500]) and lowest for device=phone "
        "(0.7000 [0.6000, 0.8000]); their intervals do not meet",
        f"{GATE}: device decides 20.0% [10.0%, 30.0%] of which expert a row gets",
        "where device shall not decide about experts: set model.balance (kind groups) to a feature of kind id that "
        "says it",
    ]


@pytest.mark.parametrize(
    ("routing", "sentence"),
    [
        (
            GroupRouting(GATE, "device", 2, 0.01, 0.0, 0.02, 0.5),
            "alike for every device, as far as these",
        ),
        (
            GroupRouting(GATE, "device", 2, 0.1, None, None, 0.5),
            "device decides 20.0% of which expert a row gets, ch",
        ),
        (GroupRouting(GATE, "device", 2, 0.0, 0.0, 0.0, 0.0), "gives all rows the same expert, whatever their device"),
    ],
)
def test_sentence_about_a_gate_that_groups_do_not_move(routing: GroupRouting, sentence: str) -> None:
    (found,) = group_sentences(report_of((routing,)))

    assert sentence in found


def test_intervals_that_overlap_are_said_to() -> None:
    tv = MetricRow("ctr", "all", "auc", "device=tv", 0.75, 0.7, 0.85, 90, 30)

    (sentence,) = group_sentences(report_of((), (tv,)))

    assert sentence.endswith("; their intervals overlap")


def test_report_of_real_rows_keeps_what_groups_decide_in_json_and_page(
    predictions: Predictions, tmp_path: Path
) -> None:
    shares_NV = np.eye(2, dtype=np.float32)[[0, 1] * 6]
    config = EvaluationConfig(slices=("device",), num_resamples=30)
    routing = group_routing({GATE: shares_NV}, predictions, config=config)

    report = replace(evaluate(predictions, config=config), routing=routing)
    write_report_page(report, predictions, [], tmp_path / "report.html")

    assert Report.from_json(report.to_json()) == report
    page = (tmp_path / "report.html").read_text()
    assert f"{GATE}: " in page
