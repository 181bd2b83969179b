"""Two tasks that depend on disjoint features: experts keep them apart, a shared bottom of the same width cannot."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from recmoe.architectures import ArchitectureConfig, CGCConfig, MMoEConfig, PLEConfig, SharedBottomConfig

# |a| + |b| takes four ReLU units, so a bottom of four units holds one of the tasks, not both.
WIDTH = (4,)
NUM_SEEDS = 2


def answers(x_B4: Tensor) -> list[Tensor]:
    """|x0| + |x1| for the left task, |x2| + |x3| for the right one."""
    return [x_B4[:, :2].abs().sum(1), x_B4[:, 2:].abs().sum(1)]


@cache
def unexplained(config: ArchitectureConfig) -> float:
    """Share of the variance left on new rows, mean over tasks and seeds."""
    shares = []
    for seed in range(NUM_SEEDS):
        torch.manual_seed(seed)
        architecture = config.build(in_features=4, task_names=("left", "right"))
        towers = nn.ModuleList(nn.Linear(architecture.out_features, 1) for _ in range(2))
        optimizer = torch.optim.Adam([*architecture.parameters(), *towers.parameters()], lr=0.02)
        train_B4, test_B4 = torch.randn(256, 4), torch.randn(256, 4)

        def errors(x_B4: Tensor, architecture: nn.Module = architecture, towers: nn.ModuleList = towers) -> Tensor:
            h, _ = architecture(x_B4)
            pairs = zip(towers, h, answers(x_B4), strict=True)
            return torch.stack(
                [(tower(h_BH).squeeze(1) - y_B).square().mean() / y_B.var() for tower, h_BH, y_B in pairs]
            )

        for _ in range(200):
            optimizer.zero_grad()
            errors(train_B4).sum().backward()
            optimizer.step()
        shares.append(errors(test_B4).mean().item())
    return sum(shares) / NUM_SEEDS


@pytest.mark.parametrize(
    "config",
    [
        MMoEConfig(num_experts=4, expert_hidden=WIDTH),
        CGCConfig(num_shared_experts=1, num_task_experts=1, expert_hidden=WIDTH),
        PLEConfig(num_shared_experts=1, num_task_experts=1, num_levels=2, expert_hidden=WIDTH),
    ],
    ids=lambda config: config.kind,
)
def test_experts_separate_what_a_shared_bottom_of_the_same_width_cannot(config: ArchitectureConfig) -> None:
    shared_bottom = unexplained(SharedBottomConfig(hidden=WIDTH))

    with_experts = unexplained(config)

    assert shared_bottom > 0.4
    assert with_experts < 0.5 * shared_bottom
