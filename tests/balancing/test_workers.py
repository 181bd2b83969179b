"""Two processes that each see half of a batch merge gradients as one that sees all of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from recmoe.balancing.fork import Fork
from recmoe.balancing.rules.imtl_g import IMTLGConfig
from recmoe.balancing.weightings.dwa import DWAWeighting
from recmoe.balancing.weightings.famo import FAMOWeighting
from recmoe.balancing.weightings.gradnorm import GradNormWeighting

NUM_STEPS, NUM_ROWS = 4, 8


class Model(nn.Module):
    """A shared layer, three heads whose gradients conflict, and a weighting."""

    def __init__(self, weighting: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        fork = IMTLGConfig().build(num_tasks=3)
        assert fork is not None
        self.fork: Fork = fork
        self.bottom = nn.Linear(4, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.weighting: nn.Module
        if weighting == "dwa":
            self.weighting = DWAWeighting(weights=[1.0] * 3, steps=1, temperature=0.5)
        elif weighting == "famo":
            self.weighting = FAMOWeighting(weights=[1.0] * 3, lr=0.5, weight_decay=0.0)
        else:
            gradnorm = GradNormWeighting(weights=[1.0] * 3, alpha=1.0, lr=0.1)
            self.fork.listen(gradnorm.observe)
            self.weighting = gradnorm

    def forward(self, x_BD: Tensor) -> Tensor:
        copies = self.fork([torch.tanh(self.bottom(x_BD))])
        losses = [
            (head(h_BH)[:, 0] - x_BD[:, task]).square().mean()
            for task, (head, (h_BH,)) in enumerate(zip(self.heads, copies, strict=True))
        ]
        loss: Tensor = self.weighting(torch.stack(losses))
        return loss


def trained(model: nn.Module, *, rank: int, world_size: int) -> dict[str, Tensor]:
    """Weights and states after some steps on this process's part of every batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(NUM_STEPS):
        x_BD = torch.randn(NUM_ROWS, 4, generator=generator)
        optimizer.zero_grad()
        model(x_BD.chunk(world_size)[rank]).backward()
        optimizer.step()
    return {name.removeprefix("module."): value.clone() for name, value in model.state_dict().items()}


def work(rank: int, weighting: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = Model(weighting)
    found = trained(DistributedDataParallel(model), rank=rank, world_size=2)
    torch.save((found, model.fork.gram_TT, model.fork.weights_T), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["gradnorm", "dwa", "famo"])
def test_two_processes_with_half_a_batch_each_are_one_with_the_whole(weighting: str, tmp_path: Path) -> None:
    alone = Model(weighting)

    expected = trained(alone, rank=0, world_size=1)
    multiprocessing.spawn(work, args=(weighting, str(tmp_path)), nprocs=2)

    for rank in range(2):
        found, gram_TT, weights_T = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(gram_TT, alone.fork.gram_TT, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(weights_T, alone.fork.weights_T, rtol=1e-3, atol=1e-4)
