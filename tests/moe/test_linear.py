"""SidedInput and linear: the shared part is multiplied once per request."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recmoe.moe.linear import SidedInput, linear, select_rows


def sided(*, num_requests: int, num_candidates: int) -> SidedInput:
    return SidedInput(
        shared_RS=torch.randn(num_requests, 5),
        own_CI=torch.randn(num_candidates, 3),
        request_C=torch.randint(num_requests, (num_candidates,)),
    )


def test_concatenated_repeats_the_shared_part_per_candidate() -> None:
    x = SidedInput(
        shared_RS=torch.tensor([[1.0], [2.0]]),
        own_CI=torch.tensor([[3.0], [4.0], [5.0]]),
        request_C=torch.tensor([0, 0, 1]),
    )

    x_CD = x.concatenated()

    assert x_CD.tolist() == [[1.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert x.num_rows == 3


@pytest.mark.parametrize("num_requests", [1, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_sided_product_equals_the_product_of_the_concatenated_rows(num_requests: int, has_bias: bool) -> None:
    torch.manual_seed(0)
    x = sided(num_requests=num_requests, num_candidates=20)
    weight_OD = torch.randn(6, 8)
    bias_O = torch.randn(6) if has_bias else None

    y_CO = linear(x, weight_OD, bias_O)

    torch.testing.assert_close(y_CO, x.concatenated() @ weight_OD.T + (bias_O if has_bias else 0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_requests", [1, 4])
def test_gradients_reach_both_sides(num_requests: int) -> None:
    torch.manual_seed(0)
    x = sided(num_requests=num_requests, num_candidates=20)
    leaves = [x.shared_RS.requires_grad_(), x.own_CI.requires_grad_(), torch.randn(6, 8).requires_grad_()]
    upstream_CO = torch.randn(20, 6)

    sided_gradients = torch.autograd.grad((linear(x, leaves[2]) * upstream_CO).sum(), leaves)

    plain_gradients = torch.autograd.grad(((x.concatenated() @ leaves[2].T) * upstream_CO).sum(), leaves)
    torch.testing.assert_close(sided_gradients, plain_gradients, rtol=0, atol=1e-5)


def test_shared_part_is_multiplied_once_per_request() -> None:
    x = sided(num_requests=2, num_candidates=100)
    weight_OD = torch.randn(6, 8)

    with FlopCounterMode(display=False) as counter:
        linear(x, weight_OD)

    assert counter.get_total_flops() == 2 * 6 * (2 * 5 + 100 * 3)


def test_selected_rows_are_the_same_in_both_forms() -> None:
    x = sided(num_requests=2, num_candidates=6)
    rows_N = torch.tensor([5, 0, 0])

    selected = select_rows(x, rows_N)

    assert isinstance(selected, SidedInput)
    assert torch.equal(selected.concatenated(), select_rows(x.concatenated(), rows_N))
