"""Numbers of gates and experts by name."""

from collections.abc import Callable

import pytest
import torch

from recmoe.evaluation.expert_curves import expert_curves
from recmoe.moe.level_use import LevelUse
from recmoe.moe.segment_use import ALL

MakeLevel = Callable[..., LevelUse]


def test_every_gate_has_usage_and_entropies_and_segments_what_differs(make_level: MakeLevel) -> None:
    level = make_level({ALL: [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]], "device=tv": [[0.0, 0.0, 1.0], [0.0, 0.5, 0.5]]})

    found = expert_curves([level])

    assert {name: value for name, value in found.items() if "cvr/" not in name} == pytest.approx(
        {
            "experts/level0/ctr/usage/ctr.0": 0.5,
            "experts/level0/ctr/usage/shared.0": 0.5,
            "experts/level0/ctr/row_entropy": 1.0,
            "experts/level0/ctr/total_entropy": 1.0,
            "experts/level0/ctr/device=tv/row_entropy": 0.0,
            "experts/level0/ctr/device=tv/total_entropy": 0.0,
            "experts/level0/ctr/device=tv/shift": 0.5,
        }
    )
    assert found["experts/level0/cvr/device=tv/shift"] == 0.0


def test_similarity_is_that_of_the_level_and_of_what_a_gate_sees_in_a_segment(make_level: MakeLevel) -> None:
    a_NH, b_NH = torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0))
    usage_GE = [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]

    found = expert_curves(
        [make_level({ALL: usage_GE, "d=x": usage_GE}, {"ctr.0": a_NH, "cvr.0": b_NH, "shared.0": -a_NH})]
    )

    assert found["experts/level0/ctr/d=x/similarity"] == pytest.approx(1.0)
    assert found["experts/level0/cvr/d=x/similarity"] < 0.2
    assert found["experts/level0/similarity"] == pytest.approx(
        (1.0 + 2 * found["experts/level0/cvr/d=x/similarity"]) / 3
    )


def test_what_is_not_defined_is_left_out(make_level: MakeLevel) -> None:
    level = make_level({ALL: [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]})
    level.by_segment.sums_SGK[0, 0] = 0.0

    found = expert_curves([level])

    assert found
    assert not any(name.startswith("experts/level0/ctr/") for name in found)
    assert "experts/level0/similarity" not in found


def test_gate_without_a_choice_has_no_curves(make_level: MakeLevel) -> None:
    level = make_level({ALL: [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]})
    level.by_segment.visible_GE[0, 2] = False

    found = expert_curves([level])

    assert not any("/ctr/" in name for name in found)


def test_long_value_is_cut(make_level: MakeLevel) -> None:
    usage_GE = [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]

    found = expert_curves([make_level({ALL: usage_GE, "text=" + 300 * "x": usage_GE})])

    assert found["experts/level0/ctr/text=" + 95 * "x" + "/shift"] == 0.0


def test_stroke_in_a_value_makes_no_folder_of_curves(make_level: MakeLevel) -> None:
    usage_GE = [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]

    found = expert_curves([make_level({ALL: usage_GE, "site=a/b": usage_GE})])

    assert found["experts/level0/ctr/site=a_b/shift"] == 0.0
