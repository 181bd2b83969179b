import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from recmoe.balancing.fork import Fork, weigh
from recmoe.balancing.rules.pcgrad import PCGradConfig


def against(gram_PP: Tensor) -> Tensor:
    """A rule with weights that no accident gives."""
    return torch.arange(1, len(gram_PP) + 1, dtype=gram_PP.dtype) + gram_PP[0]


class TwoHeads(nn.Module):
    """Two shared layers of different shapes, and three heads that read one or both."""

    def __init__(self, fork: Fork | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bottom = nn.Linear(4, 5)
        self.side = nn.Linear(4, 2)
        self.heads = nn.ModuleList([nn.Linear(5, 1), nn.Linear(7, 1), nn.Linear(2, 1)])
        self.fork = fork

    def shared(self, x_BD: Tensor) -> list[Tensor]:
        return [torch.tanh(self.bottom(x_BD)), self.side(x_BD)]

    def losses(self, shared: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        inputs = [shared[0][0], torch.cat([*shared[1]], dim=1), shared[2][1]]
        return [
            head(input_BH).square().mean() * (task + 1)
            for task, (head, input_BH) in enumerate(zip(self.heads, inputs, strict=True))
        ]

    def forward(self, x_BD: Tensor) -> list[Tensor]:
        shared = self.shared(x_BD)
        return self.losses([shared] * 3 if self.fork is None else self.fork(shared))


def rows(num_rows: int = 6) -> Tensor:
    return torch.randn(num_rows, 4, generator=torch.Generator().manual_seed(1))


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def naive_grads(model: TwoHeads, x_BD: Tensor) -> dict[str, Tensor]:
    """Every task's gradient by itself, their Gram matrix, the rule, the weighted sum."""
    shared = model.shared(x_BD)
    losses = model.losses([shared] * 3)
    of_task = [
        torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True, materialize_grads=True)
        for loss in losses
    ]
    flat_TS = torch.stack([torch.cat([grad.flatten() for grad in of]) for of in of_task])
    weights_T = weigh(against, flat_TS @ flat_TS.t())
    merged = [
        sum((weight * of[tensor] for weight, of in zip(weights_T, of_task, strict=True)), torch.zeros(()))
        for tensor in range(2)
    ]
    body = [parameter for name, parameter in model.named_parameters() if not name.startswith("heads")]
    heads = [parameter for name, parameter in model.named_parameters() if name.startswith("heads")]
    found = torch.autograd.grad(shared, body, merged, retain_graph=True)
    of_heads = torch.autograd.grad(sum(losses, torch.zeros(())), heads)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, (*found, *of_heads), strict=True))


def test_merged_gradient_equals_a_naive_loop_over_the_tasks() -> None:
    model = TwoHeads(Fork(num_tasks=3, rule=against))

    torch.stack(model(rows())).sum().backward()

    torch.testing.assert_close(grads(model), naive_grads(model, rows()))


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_without_a_rule_gradients_are_those_of_a_model_without_a_fork(num_tasks: int) -> None:
    plain, forked = TwoHeads(None), TwoHeads(Fork(num_tasks=3))

    for model in (plain, forked):
        torch.stack(model(rows())[:num_tasks]).sum().backward()

    expected, found = grads(plain), grads(forked)
    assert found.keys() == expected.keys()
    # Two numbers have one sum; three are added up in another order.
    tolerance = 0.0 if num_tasks == 2 else 1e-6
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_gradients_of_several_batches_add_up() -> None:
    model, first, second = TwoHeads(Fork(num_tasks=3, rule=against)), rows(6)[:3], rows(6)[3:]
    expected = {name: grad + naive_grads(model, second)[name] for name, grad in naive_grads(model, first).items()}

    for x_BD in (first, second):
        torch.stack(model(x_BD)).sum().backward()

    torch.testing.assert_close(grads(model), expected)


def test_heads_get_their_own_gradients_whatever_the_rule() -> None:
    plain, forked = TwoHeads(None), TwoHeads(Fork(num_tasks=3, rule=against))

    for model in (plain, forked):
        torch.stack(model(rows())).sum().backward()

    for name, grad in grads(plain).items():
        assert torch.equal(grad, grads(forked)[name]) == name.startswith("heads"), name


def test_copies_are_views_and_without_gradients_the_tensors_themselves() -> None:
    fork, shared = Fork(num_tasks=2), [torch.ones(3, requires_grad=True)]

    copies = fork(shared)
    with torch.no_grad():
        alone = fork(shared)

    assert [copy.data_ptr() for (copy,) in copies] == [shared[0].data_ptr()] * 2
    assert [copy is shared[0] for (copy,) in alone] == [True, True]


def test_gradients_in_bfloat16_are_multiplied_in_float32() -> None:
    fork = Fork(num_tasks=2)
    shared = torch.ones(1000, dtype=torch.bfloat16, requires_grad=True)

    (first,), (second,) = fork([shared])
    (first.sum() + 2 * second.sum()).backward()

    # 1000 and 1001 are one number in bfloat16.
    assert fork.gram_TT.dtype == torch.float32
    assert fork.gram_TT.tolist() == [[1000.0, 2000.0], [2000.0, 4000.0]]
    assert shared.grad is not None
    assert shared.grad.dtype == torch.bfloat16
    assert shared.grad.unique().tolist() == [3.0]


def test_curves_are_cosines_and_weights_of_the_last_backward_pass() -> None:
    fork = PCGradConfig().build(num_tasks=3)
    assert fork is not None
    shared = torch.zeros(2, requires_grad=True)
    before = fork.curves(["ctr", "cvr", "watch"])

    (first,), (second,), _ = fork([shared])
    (first[0] - 2 * second[0] + 2 * second[1]).backward()

    assert before == {}
    curves = fork.curves(["ctr", "cvr", "watch"])
    assert curves["train/ctr-cvr/cosine"] == pytest.approx(-1 / math.sqrt(2))
    # The third task had no gradient: it has no angle.
    assert [name for name in curves if name.endswith("cosine")] == ["train/ctr-cvr/cosine"]
    assert curves["train/watch/gradient_weight"] == 1.0
    assert curves["train/ctr/gradient_weight"] == pytest.approx(1 + 2.0)
    assert curves["train/cvr/gradient_weight"] == pytest.approx(1 + 2 / 8)


def test_listeners_see_the_matrix_of_every_backward_pass() -> None:
    seen: list[list[list[float]]] = []
    fork = Fork(num_tasks=2)
    fork.listen(lambda gram_TT: seen.append(gram_TT.tolist()))

    for factor in (1.0, 2.0):
        (first,), (second,) = fork([torch.zeros(1, requires_grad=True)])
        (factor * first - second).sum().backward()

    assert seen == [[[1.0, -1.0], [-1.0, 1.0]], [[4.0, -2.0], [-2.0, 1.0]]]


def test_what_no_task_reads_has_no_gradient() -> None:
    fork, read, unread = Fork(num_tasks=2), torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)

    copies = fork([read, unread])
    (copies[0][0] + copies[1][0]).sum().backward()

    assert read.grad is not None
    assert read.grad.tolist() == [2.0, 2.0]
    assert unread.grad is None
