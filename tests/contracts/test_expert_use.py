"""What a report shows of gates and experts can be had of every architecture, and of every kind of gate and expert."""

from typing import get_args

import pytest
import torch

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.mmoe import MMoEConfig
from recmoe.config import Config
from recmoe.conformance.probes import TASKS, inputs_of, model_of, rows
from recmoe.evaluation.expert_curves import expert_curves
from recmoe.evaluation.expert_page import expert_sections
from recmoe.evaluation.segments import segmented
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.gates import GateConfig
from recmoe.moe.level_use import LevelUse, level_use
from recmoe.moe.segment_use import ALL

NUM_ROWS = 128
CONFIGS = [
    *(kind() for kind in get_args(get_args(ArchitectureConfig)[0])),
    *(MMoEConfig(gate=gate()) for gate in get_args(get_args(GateConfig)[0])),
    *(MMoEConfig(expert=expert()) for expert in get_args(get_args(ExpertConfig)[0])),
]


def name(config: Config) -> str:
    parts = [getattr(getattr(config, part, None), "kind", "") for part in ("gate", "expert")]
    return "-".join([str(getattr(config, "kind", "")), *parts])


def levels_of(config: ArchitectureConfig) -> list[LevelUse]:
    """Of a model as it serves; every second row is on a phone, and a third of them counts for the first task."""
    model, is_phone_B = model_of(config), torch.arange(NUM_ROWS) % 2
    with torch.no_grad():
        routing = model(inputs_of(config, rows(NUM_ROWS))).routing
        counts = {task: torch.ones(NUM_ROWS) for task in TASKS}
        counts[TASKS[0]] = (torch.arange(NUM_ROWS) % 3 == 0).float()
        segments = segmented({"phone": is_phone_B.numpy()}, NUM_ROWS)
        return [
            level_use(use, num_rows=NUM_ROWS, segmented=segments, counts=counts, num_probed=NUM_ROWS) for use in routing
        ]


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_use_of_experts_is_measured_and_drawn(config: ArchitectureConfig) -> None:
    levels = levels_of(config)

    curves = expert_curves(levels)
    sections = expert_sections(levels, {1: curves, 2: curves} if curves else {})

    assert bool(sections) == bool(levels)
    for level in levels:
        use = level.by_segment
        assert use.segments == (ALL, "phone=0", "phone=1")
        assert (level.usage.usage_GE[~use.visible_GE] == 0).all()
        entropies = [entropy_SG[entropy_SG.isfinite()] for entropy_SG in (use.row_entropy_SG, use.total_entropy_SG)]
        assert all(((found >= -1e-9) & (found <= 1.0 + 1e-6)).all() for found in entropies)
    # Entropy is concave: that of a mean is no less than the mean of entropies.
    for row_entropy in (key for key in curves if key.endswith("/row_entropy")):
        assert "phone" in row_entropy or curves[row_entropy] <= curves[row_entropy.replace("row_", "total_")] + 1e-6
