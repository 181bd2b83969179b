"""What a report says of gates and experts: what is not healthy is named, and what is not known is said to be so."""

import base64
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from recmoe.evaluation.expert_curves import expert_curves
from recmoe.evaluation.expert_page import ExpertSection, expert_sections
from recmoe.evaluation.expert_plots import segment_plot
from recmoe.evaluation.segments import segmented
from recmoe.moe.balance.alarms import CURES
from recmoe.moe.gate_use import GateUse
from recmoe.moe.level_use import LevelUse, level_use
from recmoe.moe.segment_use import ALL

MakeLevel = Callable[..., LevelUse]
HEALTHY = [[0.4, 0.0, 0.6], [0.0, 0.5, 0.5]]
OTHERWISE = [[0.1, 0.0, 0.9], [0.0, 0.5, 0.5]]


def outputs(num_rows: int = 64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return dict(zip(("ctr.0", "cvr.0", "shared.0"), torch.randn(3, num_rows, 4, generator=generator), strict=True))


def section(sections: list[ExpertSection], title: str) -> ExpertSection:
    return next(one for one in sections if one.title == title)


def text_of(image: str | None) -> str:
    assert image is not None
    svg = base64.b64decode(image.removeprefix("data:image/svg+xml;base64,")).decode()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    return svg


def test_healthy_level_has_pictures_and_no_complaint(make_level: MakeLevel) -> None:
    level = make_level({ALL: HEALTHY, "device=tv": OTHERWISE}, outputs())

    found = expert_sections([level], {})

    assert [one.title for one in found] == ["Use of experts", "By task and segment", "Similarity of experts"]
    assert [len(one.plots) for one in found] == [1, 2, 1]
    assert not any(one.found or one.note for one in found)
    for one in found:
        assert one.healthy
        assert one.otherwise
        for plot in one.plots:
            text_of(plot.image)


def test_dead_experts_captured_gates_and_experts_that_are_alike_are_named(make_level: MakeLevel) -> None:
    y = outputs()
    dead = [[0.001, 0.0, 0.999], [0.0, 0.5, 0.5]]

    sections = expert_sections([make_level({ALL: dead}, {**y, "cvr.0": 2.0 * y["ctr.0"]})], {})

    use, alike = section(sections, "Use of experts"), section(sections, "Similarity of experts")
    assert use.found == [
        "level 0, expert ctr.0: gate ctr gives it 0.2% of an even share at most",
        "level 0, gate ctr: expert shared.0 gets 99.9% of all weight",
    ]
    assert alike.found == ["level 0: alike are ctr.0 and cvr.0 (1.00)"]
    assert CURES["dead"] in use.otherwise
    assert CURES["captured"] in use.otherwise
    assert CURES["collapsed"] in alike.otherwise


def test_report_without_slices_says_how_to_have_some(make_level: MakeLevel) -> None:
    found = section(expert_sections([make_level({ALL: HEALTHY})], {}), "By task and segment")

    assert found.note == "No segments: name columns in evaluation.slices, such as [device]."
    assert len(found.plots) == 2


@pytest.mark.parametrize(
    ("num_rows", "reason"),
    [(0, "no outputs of two experts to compare"), (63, "63 rows, of which 64 are needed")],
)
def test_similarity_that_is_not_known_says_why(make_level: MakeLevel, num_rows: int, reason: str) -> None:
    level = make_level({ALL: HEALTHY}, outputs(num_rows) if num_rows else {})

    (plot,) = section(expert_sections([level], {}), "Similarity of experts").plots

    assert (plot.image, plot.reason) == (None, reason)


def test_gate_without_rows_says_so(make_level: MakeLevel) -> None:
    level = make_level({ALL: HEALTHY})
    level.by_segment.sums_SGK[:, 1] = 0.0

    _, cvr = section(expert_sections([level], {}), "By task and segment").plots

    assert (cvr.image, cvr.reason) == (None, "no rows")


def test_segment_plot_names_segments_with_their_rows(make_level: MakeLevel) -> None:
    level = make_level({ALL: HEALTHY, "device=télé": OTHERWISE})

    svg = segment_plot(level.by_segment, "ctr", {ALL: 0.25})

    # Letters of its font are drawn; others the browser writes.
    assert "device=télé (10)" in svg
    assert ">0.25<" in svg
    assert "cvr.0" not in svg


def test_course_of_a_run_is_drawn_from_its_curves(make_level: MakeLevel) -> None:
    early = make_level({ALL: HEALTHY, "device=tv": HEALTHY}, outputs())
    late = make_level({ALL: HEALTHY, "device=tv": OTHERWISE}, outputs())
    history = {20: expert_curves([late]), 10: expert_curves([early])}

    found = section(expert_sections([late], history), "Over time")

    titles = [plot.title for plot in found.plots]
    assert titles == ["Level 0: use", "Level 0: entropy", "Level 0: segments", "Similarity"]
    assert found.note is None
    for plot in found.plots:
        text_of(plot.image)


def test_one_evaluation_is_no_course(make_level: MakeLevel) -> None:
    level = make_level({ALL: HEALTHY})

    found = section(expert_sections([level], {10: expert_curves([level])}), "Over time")

    assert not found.plots
    assert found.note is not None
    assert "training.evaluate_every" in found.note


def test_model_without_gates_has_no_sections() -> None:
    assert expert_sections([], {}) == []


def test_very_many_experts_make_a_picture_of_bounded_width_and_no_curve_each() -> None:
    num_experts = 300
    names = tuple(f"shared.{expert}" for expert in range(num_experts))
    weights_BGE = torch.softmax(torch.randn(80, 1, num_experts), dim=2)
    use = GateUse(
        level=0,
        gates=("ctr",),
        experts=names,
        weights_BGE=weights_BGE,
        outputs=lambda num_rows: {name: torch.randn(num_rows, 2) for name in names},
    )
    level = level_use(use, num_rows=80, segmented=segmented({}, 80), counts={}, num_probed=80)

    curves = expert_curves([level])
    first, _, similarity = expert_sections([level], {})

    assert len(curves) == 3
    for one in (first, similarity):
        (plot,) = one.plots
        width = re.search(r'width="([\d.]+)pt"', text_of(plot.image))
        assert width is not None
        assert float(width[1]) < 14 * 72
    assert similarity.plots[0].explanation == "linear CKA of 64 of 300 experts over 80 rows"
