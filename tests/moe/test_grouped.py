"""Rows in groups that the host has not counted: the same numbers as counted ones, and nothing is read on the host."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from recmoe.balancing.fork import Fork
from recmoe.moe.executors import dispatched, dispatched_in_place
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts.mlp import MlpExperts
from recmoe.moe.experts.stack import Form
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.grouped import RowGroups, grouped_linear
from recmoe.moe.linear import SidedInput
from recmoe.moe.mixture import MixtureConfig

MASK = [[True, True, False, True], [False, True, True, True]]


def layer(in_features: int, hidden: tuple[int, ...] = (8, 4), k: int = 2, form: Form = "batched") -> ExpertLayer:
    torch.manual_seed(0)
    return MixtureConfig(expert_hidden=hidden, gate=TopKGateConfig(k=k)).layer(
        experts={"a.0": 0, "shared.0": 2, "b.0": 1, "shared.1": 2},
        gates={"a": 0, "b": 1},
        mask_GE=MASK,
        in_features=in_features,
        form=form,
    )


def stack_of(expert_layer: ExpertLayer) -> MlpExperts:
    assert isinstance(expert_layer.experts, MlpExperts)
    return expert_layer.experts


def test_groups_say_which_expert_a_row_is_of() -> None:
    groups = RowGroups.of_counts(torch.tensor([3, 0, 2]), room=6)

    assert groups.ends_E.tolist() == [3, 3, 5]
    assert groups.expert_P.tolist() == [0, 0, 0, 2, 2, 2]
    assert groups.is_used_P.tolist() == [True] * 5 + [False]


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(8, 16), (5, 16), (8, 3), (7, 1)])
def test_grouped_linear_is_a_linear_layer_per_expert(num_inputs: int, num_outputs: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(3, num_outputs, num_inputs), torch.randn(3, num_outputs)
    groups = RowGroups.of_counts(torch.tensor([3, 0, 2]), room=6)
    x = torch.randn(6, num_inputs)

    y = grouped_linear(groups.used(x), weight, bias, groups)

    expected = [functional.linear(x[:3], weight[0], bias[0]), functional.linear(x[3:5], weight[2], bias[2])]
    torch.testing.assert_close(y, torch.cat([*expected, torch.zeros(1, num_outputs)]))


@pytest.mark.parametrize("in_features", [8, 5])
@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_uncounted_rows_give_what_counted_ones_give(in_features: int, num_rows: int) -> None:
    expert_layer = layer(in_features)
    inputs = [torch.randn(num_rows, in_features, requires_grad=True) for _ in range(3)]
    leaves = [*inputs, *expert_layer.parameters()]

    def both(call: str) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        _, use = expert_layer.route(inputs)
        if call == "counted":
            h = dispatched(stack_of(expert_layer), inputs, weights_BGE=use.weights_BGE)
        else:
            h, _ = expert_layer(inputs)
        upstream = torch.arange(1.0, 5.0)
        return h, torch.autograd.grad(sum((h_BH * upstream).sum() for h_BH in h), leaves)

    h, grads = both("uncounted")

    expected_h, expected_grads = both("counted")
    torch.testing.assert_close(h, expected_h, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-5, atol=1e-6)


def test_sided_input_in_groups() -> None:
    expert_layer = layer(5)
    x = SidedInput(shared_RS=torch.randn(2, 3), own_CI=torch.randn(5, 2), request_C=torch.tensor([0, 0, 1, 1, 0]))

    h, _ = expert_layer([x] * 3)

    expected, _ = expert_layer([x.concatenated()] * 3)
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-6)


def test_weight_of_zero_belongs_to_no_pair() -> None:
    expert_layer = layer(8)
    inputs = [torch.randn(3, 8)] * 3
    # The first gate chooses one expert alone though it may choose two, as when a softmax leaves the other nothing.
    weights = torch.zeros(3, 2, 4)
    weights[:, 0, 3], weights[:, 1, 1], weights[:, 1, 3] = 1.0, 0.5, 0.5
    weights.requires_grad_()

    h = dispatched_in_place(
        stack_of(expert_layer), inputs, read_E=expert_layer.read_E, weights_BGE=weights, num_used=[2, 2], num_pairs=4
    )

    y = stack_of(expert_layer)(inputs)
    torch.testing.assert_close(h, [y[3], (y[1] + y[3]) / 2])
    (grad,) = torch.autograd.grad(h[0].sum(), weights)
    assert (grad[:, 0, :3] == 0).all()


def test_dense_and_sparse_gates_share_the_groups() -> None:
    expert_layer = layer(8)
    expert_layer.gates[1] = SoftmaxGateConfig().build(in_features=8, num_experts=3)
    inputs = [torch.randn(6, 8) for _ in range(3)]

    h, use = expert_layer(inputs)

    expected = dispatched(stack_of(expert_layer), inputs, weights_BGE=use.weights_BGE)
    torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_gates_are_kept_apart_in_groups() -> None:
    def merged(form: Form) -> tuple[Tensor, tuple[Tensor, ...]]:
        expert_layer = layer(8, form=form)
        # Only what both gates see, and chose, is compared: one rule whose result no sum has.
        fork = Fork(num_tasks=2, rule=lambda gram_PP: gram_PP.diagonal().rsqrt())
        expert_layer.fork = fork
        inputs = [x.requires_grad_() for x in torch.randn(3, 20, 8).unbind()]
        h, _ = expert_layer(inputs)
        loss = (h[0] * torch.arange(1.0, 5.0)).sum() - 2 * h[1].square().sum()
        return fork.gram_TT, torch.autograd.grad(loss, [*inputs, *expert_layer.parameters()])[:3]

    gram, grads = merged("batched")

    expected_gram, expected_grads = merged("loop")
    torch.testing.assert_close(gram, expected_gram, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-5, atol=1e-6)
    assert gram[0, 1] != 0


@pytest.mark.parametrize("is_forked", [False, True], ids=["plain", "forked"])
def test_nothing_is_read_on_the_host(*, is_forked: bool) -> None:
    expert_layer = layer(8, hidden=(16, 8)).to(torch.bfloat16)
    expert_layer.fork = Fork(num_tasks=2) if is_forked else None
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    # A fake tensor has no numbers: whatever asks for one, such as a count, fails.
    with mode:
        inputs = [torch.randn(6, 8, dtype=torch.bfloat16) for _ in range(3)]
        h, use = expert_layer(inputs)
        sum(h_BH.sum() for h_BH in h).backward()
        with pytest.raises(RuntimeError, match="nonzero"):
            dispatched(stack_of(expert_layer), inputs, weights_BGE=use.weights_BGE)

    assert [h_BH.shape for h_BH in h] == [(6, 8)] * 2
