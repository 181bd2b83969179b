"""Use of experts by segment, on rows that are counted by hand."""

import math
from collections.abc import Sequence

import pytest
import torch

from recmoe.moe.gate_use import GateUse
from recmoe.moe.segment_use import ALL, Segmented, SegmentUse, segment_use, task_of_gate

PHONE, TV = "device=phone", "device=tv"


def use_of(
    weights_BGE: Sequence[Sequence[Sequence[float]]],
    devices: Sequence[str],
    counts: dict[str, Sequence[float]] | None = None,
    visible_GE: list[list[bool]] | None = None,
) -> SegmentUse:
    """Of gates ctr and shared, on rows of devices."""
    weights = torch.tensor(weights_BGE, requires_grad=True)
    names = tuple(dict.fromkeys((ALL, *(f"device={device}" for device in devices))))
    segment_B = torch.tensor([names.index(f"device={device}") for device in devices], dtype=torch.int64)
    num_rows = len(devices)
    segmented = Segmented(
        names, torch.arange(num_rows).repeat(2), torch.cat([torch.zeros(num_rows, dtype=torch.int64), segment_B])
    )
    use = GateUse(
        level=1,
        gates=("ctr", "shared")[: weights.shape[1]],
        experts=tuple(f"shared.{expert}" for expert in range(weights.shape[2])),
        weights_BGE=weights,
        visible_GE=None if visible_GE is None else torch.tensor(visible_GE),
    )
    given = {"ctr": [1.0] * num_rows} if counts is None else counts
    return segment_use(use, segmented, {task: torch.tensor(of_task) for task, of_task in given.items()})


def test_usage_of_a_segment_is_the_mean_over_its_rows() -> None:
    use = use_of([[[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 1.0]]], ["phone", "phone", "tv"])

    assert use.segments == (ALL, PHONE, TV)
    assert use.usage_SGE[:, 0].tolist() == [[0.5, 0.5], [0.75, 0.25], [0.0, 1.0]]
    assert use.num_rows_SG[:, 0].tolist() == [3, 2, 1]


def test_gate_of_a_task_counts_the_rows_of_the_task_and_others_count_all() -> None:
    weights = [[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]

    use = use_of(weights, ["tv", "tv"], counts={"ctr": [0.0, 1.0], "cvr": [0.0, 0.0]})

    assert use.usage_SGE[0].tolist() == [[0.0, 1.0], [0.5, 0.5]]
    assert use.num_rows_SG[0].tolist() == [1, 2]
    # The rows of a segment are all of them: by these the most frequent ones are found.
    assert use.num_rows_S.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("gate", "task"), [("ctr", "ctr"), ("ctr alone", "ctr"), ("group ctr", None), ("shared", None)]
)
def test_task_of_a_gate_is_known_by_its_name(gate: str, task: str | None) -> None:
    assert task_of_gate(gate, ["ctr", "cvr"]) == task


def test_decided_rows_and_even_use_are_told_apart() -> None:
    decided = use_of([[[1.0, 0.0]], [[0.0, 1.0]]], ["tv", "tv"])
    alike = use_of([[[0.5, 0.5]], [[0.5, 0.5]]], ["tv", "tv"])
    captured = use_of([[[1.0, 0.0]], [[1.0, 0.0]]], ["tv", "tv"])

    assert [
        (float(use.row_entropy_SG[0, 0]), float(use.total_entropy_SG[0, 0])) for use in (decided, alike, captured)
    ] == [
        (0.0, 1.0),
        (1.0, 1.0),
        (0.0, 0.0),
    ]


def test_entropies_are_those_of_shares_in_units_of_their_largest() -> None:
    # Twice the shares .9 and .1, and .5 and .5; a third expert is not seen.
    use = use_of([[[1.8, 0.2, 0.0]], [[1.0, 1.0, 0.0]]], ["tv", "tv"], visible_GE=[[True, True, False]])

    def entropy(*shares: float) -> float:
        return -sum(share * math.log2(share) for share in shares)

    assert float(use.row_entropy_SG[0, 0]) == pytest.approx((entropy(0.9, 0.1) + 1.0) / 2)
    assert float(use.total_entropy_SG[0, 0]) == pytest.approx(entropy(0.7, 0.3))


def test_row_without_a_weight_has_no_entropy() -> None:
    use = use_of([[[0.0, 0.0]], [[0.5, 0.5]]], ["phone", "tv"])

    assert use.usage_SGE[:, 0].tolist() == [[0.25, 0.25], [0.0, 0.0], [0.5, 0.5]]
    assert use.row_entropy_SG[0, 0] == use.row_entropy_SG[2, 0] == 1.0
    assert use.row_entropy_SG[1, 0].isnan()
    assert use.total_entropy_SG[1, 0].isnan()


def test_gate_that_sees_one_expert_has_no_entropy() -> None:
    use = use_of([[[1.0, 0.0]]], ["tv"], visible_GE=[[True, False]])

    assert use.row_entropy_SG.isnan().all()
    assert use.total_entropy_SG.isnan().all()


def test_shift_is_what_a_segment_uses_otherwise() -> None:
    use = use_of([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]], ["phone", "tv", "tv", "tv"])

    assert use.shift_SG[:, 0].tolist() == [0.0, 0.75, 0.25]


def test_merged_use_is_that_of_all_rows_with_the_segments_of_both() -> None:
    weights = torch.softmax(torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)), dim=2).tolist()
    devices = ["tv", "phone", "tv", "watch", "phone", "watch"]
    counts = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]

    merged = use_of(weights[:3], devices[:3], {"ctr": counts[:3]}).merge(
        use_of(weights[3:], devices[3:], {"ctr": counts[3:]})
    )

    whole = use_of(weights, devices, {"ctr": counts})
    assert merged.segments == whole.segments
    assert merged.num_rows_S.tolist() == whole.num_rows_S.tolist() == [6, 2, 2, 2]
    torch.testing.assert_close(merged.sums_SGK, whole.sums_SGK)


def test_rare_values_are_taken_together() -> None:
    weights = [[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[0.5, 0.5]], [[0.0, 1.0]]]

    use = use_of(weights, ["watch", "tv", "tv", "phone", "phone"]).most_frequent(1)

    # Of two that are as frequent, the first by name.
    assert use.segments == (ALL, PHONE, "device=(other)")
    assert use.num_rows_S.tolist() == [5, 2, 3]
    assert use.usage_SGE[2, 0].tolist() == pytest.approx([1 / 3, 2 / 3])


def test_first_rows_of_a_batch_are_known_by_segment() -> None:
    segmented = Segmented((ALL, PHONE, TV), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 0, 0, 2, 1, 2]))

    found = segmented.first_rows(2)

    assert {name: rows_N.tolist() for name, rows_N in found.items()} == {ALL: [0, 1], PHONE: [1], TV: [0]}


def test_measuring_leaves_the_graph_alone() -> None:
    weights = torch.tensor([[[0.4, 0.6]]], requires_grad=True)
    use = GateUse(level=0, gates=("ctr",), experts=("a.0", "a.1"), weights_BGE=weights)

    found = segment_use(use, Segmented((ALL,), torch.tensor([0]), torch.tensor([0])), {})

    assert not found.sums_SGK.requires_grad
