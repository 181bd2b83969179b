"""Cross-stitch networks: the paper's equation row by row, units that begin with mostly their own, and their names."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from recmoe.architectures.cross_stitch import CrossStitch, CrossStitchConfig
from recmoe.axes import describe
from recmoe.moe.experts import Form
from tests.parity.naive import HIDDEN, WIDTH, assert_equal_to_paper, run_expert


def network_of(task_names: Sequence[str], *, own: float = 0.9, form: Form = "auto") -> CrossStitch:
    torch.manual_seed(0)
    return CrossStitch(in_features=WIDTH, task_names=task_names, hidden=HIDDEN, own=own, form=form)


@pytest.mark.parametrize("form", ["loop", "batched"])
@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("tasks", ["a", "ab", "abcd"], ids=len)
def test_representations_equal_the_equation_layer_by_layer(tasks: str, num_rows: int, form: Form) -> None:
    network = network_of(tasks, form=form).double()
    for stitch in network.stitches:
        # A matrix that is neither symmetric nor one of shares.
        torch.nn.init.normal_(stitch.alpha_TT)

    def paper(x_D: Tensor) -> list[Tensor]:
        streams = [x_D] * len(tasks)
        for layer, stitch in zip(network.layers, network.stitches, strict=True):
            outputs = [run_expert(layer, task, stream) for task, stream in enumerate(streams)]
            streams = []
            for target in range(len(tasks)):
                # Eq. 1: x̃_A = α_AA · x_A + α_AB · x_B, unit by unit.
                stitched = torch.zeros_like(outputs[0])
                for source, output in enumerate(outputs):
                    stitched = stitched + stitch.alpha_TT[target, source] * output
                streams.append(stitched)
        return streams

    assert_equal_to_paper(network, paper, num_rows=num_rows, num_tasks=len(tasks))


def test_unit_begins_with_mostly_its_own_and_even_shares_of_the_others() -> None:
    network = CrossStitchConfig(own=0.7).build(in_features=WIDTH, task_names=("click", "buy", "rate"))

    expected_TT = torch.tensor([[0.7, 0.15, 0.15], [0.15, 0.7, 0.15], [0.15, 0.15, 0.7]])
    assert len(network.stitches) == 2
    for stitch in network.stitches:
        torch.testing.assert_close(stitch.alpha_TT.data, expected_TT)


def test_tasks_that_read_only_their_own_are_kept_apart() -> None:
    network = network_of(("click", "buy"), own=1.0)

    network(torch.randn(20, WIDTH))[0][1].sum().backward()

    for layer in network.layers:
        gradient_EOD = layer.weights_EOD[0].grad
        assert [bool(gradient.any()) for gradient in gradient_EOD] == [False, True]


def test_unit_names_the_task_that_reads_and_the_one_that_is_read() -> None:
    described = describe(network_of(("click", "buy")))

    assert described["stitches.1.alpha_TT"].axes == (("click", "buy"), ("click", "buy"))
    assert described["layers.0.weights_EOD.0"].axes[0] == ("click", "buy")
