"""Linear layers of experts on the rows that chose them: as pair by pair, in either form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from recmoe.moe.chosen import ChosenPairs

FORMS: dict[str, Callable[[Tensor, Tensor], ChosenPairs]] = {
    "counted": lambda expert_RK, weight_EOD: ChosenPairs.counted(expert_RK, len(weight_EOD), weight_EOD.dtype),
    "in_place": lambda expert_RK, weight_EOD: ChosenPairs.in_place(expert_RK, len(weight_EOD)),
}
every_form = pytest.mark.parametrize("form", FORMS)


def weights(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(4, 3, 5, dtype=dtype, requires_grad=True), torch.randn(4, 5, 3, dtype=dtype, requires_grad=True)


@every_form
@pytest.mark.parametrize("expert_RK", [[[0, 2], [2, 0], [2, 1]], [[3, 2]], [[1], [1], [1]], []], ids=str)
def test_each_pair_meets_the_matrix_of_its_expert(form: str, expert_RK: list[list[int]]) -> None:
    first_EOD, second_EDO = weights()
    chosen_RK = torch.tensor(expert_RK, dtype=torch.int64).view(len(expert_RK), -1 if expert_RK else 2)
    x_RD = torch.randn(len(expert_RK), 5, requires_grad=True)
    leaves = [x_RD, first_EOD, second_EDO]

    pairs = FORMS[form](chosen_RK, first_EOD)
    y_PD = pairs.of_pairs(pairs.of_rows(x_RD, first_EOD), second_EDO)

    loop = [second_EDO[e] @ first_EOD[e] @ x_RD[row] for row, chosen in enumerate(expert_RK) for e in chosen]
    expected_PD = torch.stack(loop) if loop else x_RD.new_zeros(0, 5)
    torch.testing.assert_close(y_PD, expected_PD, rtol=1e-5, atol=1e-5)
    gradients, expected = (
        torch.autograd.grad((y * y.detach().cos()).sum(), leaves, allow_unused=True, materialize_grads=True)
        for y in (y_PD, expected_PD + 0.0 * x_RD.sum())
    )
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


def test_order_of_the_example() -> None:
    pairs = ChosenPairs.counted(torch.tensor([[0, 2], [2, 0], [2, 1]]), 3, torch.float32)

    assert (pairs.order_Q.tolist(), pairs.place_P.tolist()) == ([0, 3, 5, 1, 2, 4], [0, 3, 4, 1, 5, 2])
    assert pairs.parts == [2, 1, 3]


def test_numbers_of_rows_in_bfloat16_on_a_cpu_are_few() -> None:
    first_EOD, _ = weights(torch.bfloat16)
    expert_RK, x_RD = torch.tensor([[0, 2], [2, 0], [2, 1]]), torch.randn(3, 5, dtype=torch.bfloat16)

    pairs = ChosenPairs.of(expert_RK, first_EOD)

    assert pairs.parts == [64, 64, 64, 0]
    expected = ChosenPairs.in_place(expert_RK, 4).of_rows(x_RD, first_EOD)
    torch.testing.assert_close(pairs.of_rows(x_RD, first_EOD), expected, rtol=0.02, atol=0.02)


def test_only_chosen_pairs_are_computed() -> None:
    first_EOD, _ = weights()
    pairs = ChosenPairs.of(torch.tensor([[0, 2], [2, 0], [2, 1]]), first_EOD)

    with FlopCounterMode(display=False) as counter:
        pairs.of_rows(torch.randn(3, 5), first_EOD)

    assert counter.get_total_flops() == 2 * 6 * 3 * 5


def test_nothing_is_read_on_the_host_in_place() -> None:
    # A fake tensor has no numbers: whatever asks for one, such as a count, fails.
    with FakeTensorMode():
        expert_RK, weight_EOD = torch.zeros(6, 2, dtype=torch.int64), torch.randn(4, 8, 16, dtype=torch.bfloat16)

        y_PO = ChosenPairs.in_place(expert_RK, 4).of_rows(torch.randn(6, 16, dtype=torch.bfloat16), weight_EOD)

        with pytest.raises(RuntimeError):
            ChosenPairs.counted(expert_RK, 4, torch.bfloat16)

    assert y_PO.shape == (12, 8)
