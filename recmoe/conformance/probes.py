"""Small inputs, tasks and models on which properties are looked at; everything is drawn from fixed seeds."""

# B rows, D = 6 input width

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from recmoe.architectures.seam import Inputs, Parts, copy_group
from recmoe.architectures.trunks.trunk import TrunkKind
from recmoe.model import ModelConfig
from recmoe.moe.linear import SidedInput
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig

NUM_FEATURES = 6
NUM_SHARED = 4
"""Of the features, those that a sided input holds once per request."""
FEATURES = {f"feature{place}": 1 for place in range(NUM_FEATURES)}
"""By name, how wide."""
TASKS = ("click", "buy", "rate")
SMALL = {"num_experts": 4, "expert_hidden": (32, 16)}
"""The sizes of a mixture in which a gate, experts or a trunk are looked at."""


def rows(num_rows: int, *, seed: int = 1) -> Tensor:
    """x_BD from N(0, 1)."""
    return torch.randn(num_rows, NUM_FEATURES, generator=torch.Generator().manual_seed(seed))


def sided_rows(num_rows: int = 20, *, num_requests: int = 3) -> SidedInput:
    """Rows of several requests, as a server holds them."""
    x_BD = rows(num_rows)
    return SidedInput(
        shared_RS=rows(num_requests, seed=2)[:, :NUM_SHARED],
        own_CI=x_BD[:, NUM_SHARED:],
        request_C=torch.arange(num_rows) * 7 % num_requests,
    )


def parts(config: Any, task_names: Sequence[str] = TASKS) -> Parts:
    """What a model of binary tasks is made for."""
    sections = _sections(config)
    binary = {name: {"kind": "binary", "label": name} for name in task_names}
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(binary))
    return Parts(
        widths={
            "all": NUM_FEATURES,
            **{copy_group(copy): NUM_FEATURES for copy in sections.architecture.copies(tasks)},
            **{name: len(features) for name, features in sections.read_groups(FEATURES).items()},
        },
        tasks=tasks,
        make_tower=lambda width, name: TowerConfig().build(in_features=width, logits=tasks.logits[name]),
    )


def model_of(config: Any, task_names: Sequence[str] = TASKS, *, seed: int = 0) -> nn.Module:
    """The model of an architecture, or of a small mixture on a trunk, as it serves: a gate may draw while it trains."""
    torch.manual_seed(seed)
    return _sections(config).assemble(parts(config, task_names)).eval()


def inputs_of(config: Any, x: Tensor | SidedInput, task_names: Sequence[str] = TASKS) -> Inputs:
    """The rows, as every copy that the architecture asks for too, and by the groups that the trunk reads."""
    sections = _sections(config)
    copies = {copy_group(copy): x for copy in sections.architecture.copies(parts(config, task_names).tasks)}
    groups = {name: _columns(x, features) for name, features in sections.read_groups(FEATURES).items()}
    return Inputs(x, {**copies, **groups})


def _sections(config: Any) -> ModelConfig:
    """The model of a config: of an architecture, or of a trunk below a small mixture."""
    if not isinstance(config, TrunkKind):
        return ModelConfig().model_copy(update={"architecture": config})
    small = ModelConfig().architecture.model_copy(update=SMALL)
    return ModelConfig().model_copy(update={"architecture": small, "trunk": config})


def _columns(x: Tensor | SidedInput, features: Sequence[str]) -> Tensor | SidedInput:
    places = [list(FEATURES).index(feature) for feature in features]
    if isinstance(x, Tensor):
        return x[:, places]
    return SidedInput(
        shared_RS=x.shared_RS[:, [place for place in places if place < NUM_SHARED]],
        own_CI=x.own_CI[:, [place - NUM_SHARED for place in places if place >= NUM_SHARED]],
        request_C=x.request_C,
    )


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest absolute difference; infinite where shapes differ or a number is none."""
    if found.shape != expected.shape:
        return float("inf")
    gap = (found.detach().double() - expected.detach().double()).abs()
    return float("inf") if gap.isnan().any() else float(gap.max()) if gap.numel() else 0.0
