"""ExpertLayer: gates mix the experts that they see; sparse gates skip the work."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import Form, MlpExperts
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.linear import SidedInput
from recmoe.moe.mixture import MixtureConfig

# Two tasks with two and one experts, two shared experts, a gate for each and one for the shared group.
EXPERTS = {"a.0": 0, "a.1": 0, "b.0": 1, "shared.0": 2, "shared.1": 2}
GATES = {"a": 0, "b": 1, "shared": 2}
MASK = [[True, True, False, True, True], [False, False, True, True, True], [True] * 5]


class Around(nn.Module):
    """What a and b own, with weights of both signs; and a shared expert in all rows of every gate."""

    mask_GE = ((True, True, False, True, False), (False, False, True, True, False), (False, False, False, True, False))

    def __init__(self) -> None:
        super().__init__()
        self.weight_GE = nn.Parameter(torch.tensor(self.mask_GE) * torch.tensor([0.5, -0.7, -0.3, 1.0, 0.0]))

    def forward(self) -> Tensor:
        return self.weight_GE * torch.tensor(self.mask_GE)


def layer(
    form: Form = "auto",
    gate: SoftmaxGateConfig | TopKGateConfig = SoftmaxGateConfig(),  # noqa: B008
    *,
    mask: list[list[bool]] = MASK,
    around: nn.Module | None = None,
) -> ExpertLayer:
    torch.manual_seed(0)
    gates = dict(list(GATES.items())[: len(mask)])
    return MixtureConfig(expert_hidden=(7, 4), gate=gate).layer(
        experts=EXPERTS, gates=gates, mask_GE=mask, in_features=5, around=around, form=form
    )


def mixed(expert_layer: ExpertLayer, inputs: list[Tensor | SidedInput]) -> tuple[list[Tensor], Tensor]:
    h, use = expert_layer(inputs)
    return h, use.weights_BGE


def mixed_by_hand(expert_layer: ExpertLayer, inputs: list[Tensor], p_BGE: Tensor) -> list[Tensor]:
    """Σ_e p[b, g, e] · expert_e, over all experts, also those with weight zero."""
    y_BEH = torch.stack(expert_layer.experts(inputs), dim=1)
    return list(torch.einsum("bge,beh->gbh", p_BGE, y_BEH).unbind(0))


@pytest.mark.parametrize("form", ["loop", "batched"])
@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=["softmax", "top_k"])
def test_representation_is_the_weighted_sum_of_all_experts(
    form: Form, gate: SoftmaxGateConfig | TopKGateConfig
) -> None:
    expert_layer = layer(form, gate)
    inputs = [torch.randn(6, 5) for _ in range(3)]

    h, p_BGE = mixed(expert_layer, inputs)

    torch.testing.assert_close(h, mixed_by_hand(expert_layer, inputs, p_BGE), rtol=0, atol=1e-6)


# Gates that see nothing of what is mixed around them, and gates that see it too.
@pytest.mark.parametrize("mask", [MASK, [[False, True, False, False, True], [False] * 4 + [True], [True] * 5]])
@pytest.mark.parametrize("form", ["loop", "batched"])
@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=1)], ids=["softmax", "top_k"])
@pytest.mark.parametrize("is_forked", [False, True], ids=["plain", "forked"])
def test_experts_around_the_gates_are_added_in_every_row(
    form: Form, gate: SoftmaxGateConfig | TopKGateConfig, mask: list[list[bool]], *, is_forked: bool
) -> None:
    around = Around()
    expert_layer = layer(form, gate, mask=mask, around=around)
    expert_layer.fork = (lambda shared: [list(shared)] * 3) if is_forked else None
    inputs = [torch.randn(6, 5, requires_grad=True) for _ in range(3)]
    leaves = [*inputs, *expert_layer.parameters()]
    upstream = torch.randn(6, 4)

    h, p_BGE = mixed(expert_layer, list(inputs))

    expected = mixed_by_hand(expert_layer, inputs, p_BGE + around())
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(p_BGE.sum(dim=2), torch.ones(6, 3))
    grads, expected_grads = (
        torch.autograd.grad(sum((h_BH * upstream).sum() for h_BH in made), leaves, retain_graph=True)
        for made in (h, expected)
    )
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-5)


def test_sparse_gate_skips_the_work_next_to_experts_around_it() -> None:
    gate, mask = TopKGateConfig(k=1), [[False, True, False, False, True]]

    class One(nn.Module):
        mask_GE = ((True, False, False, False, False),)

        def forward(self) -> Tensor:
            return torch.tensor(self.mask_GE).float()

    expert_layer = layer(gate=gate, mask=mask, around=One())
    inputs = [torch.randn(100, 5) for _ in range(3)]

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        expert_layer(inputs)

    assert expert_layer.num_used == (2,)
    # Two experts per row: the one around the gate, and the one that it chose; and the gate's product.
    assert counter.get_total_flops() == 2 * 100 * (2 * (5 * 7 + 7 * 4) + 5 * 2)


@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=["softmax", "top_k"])
def test_gate_never_weights_a_masked_expert(gate: SoftmaxGateConfig | TopKGateConfig) -> None:
    expert_layer = layer(gate=gate)

    _, p_BGE = mixed(expert_layer, [torch.randn(6, 5) for _ in range(3)])

    assert p_BGE.shape == (6, 3, 5)
    assert p_BGE[:, ~torch.tensor(MASK)].abs().max() == 0
    torch.testing.assert_close(p_BGE.sum(2), torch.ones(6, 3))


def test_gate_reads_the_input_that_it_names() -> None:
    expert_layer = layer()
    inputs = [torch.randn(6, 5) for _ in range(3)]
    changed = [inputs[0], torch.randn(6, 5), inputs[2]]

    _, before_BGE = mixed(expert_layer, inputs)
    _, after_BGE = mixed(expert_layer, changed)

    assert [torch.equal(before_BGE[:, gate], after_BGE[:, gate]) for gate in range(3)] == [True, False, True]


def test_input_may_have_experts_and_no_gate() -> None:
    expert_layer = layer(mask=MASK[:2])

    h, p_BGE = mixed(expert_layer, [torch.randn(6, 5)] * 3)

    assert len(h) == 2
    assert p_BGE.shape == (6, 2, 5)
    assert len(expert_layer.gates) == 2


@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=["softmax", "top_k"])
@pytest.mark.parametrize("form", ["loop", "batched"])
def test_sided_input_equals_the_concatenated_one(form: Form, gate: SoftmaxGateConfig | TopKGateConfig) -> None:
    expert_layer = layer(form, gate)
    x = SidedInput(shared_RS=torch.randn(2, 3), own_CI=torch.randn(5, 2), request_C=torch.tensor([0, 0, 1, 1, 0]))

    h, p_BGE = mixed(expert_layer, [x] * 3)

    plain_h, plain_p_BGE = mixed(expert_layer, [x.concatenated()] * 3)
    torch.testing.assert_close(h, plain_h, rtol=0, atol=1e-6)
    torch.testing.assert_close(p_BGE, plain_p_BGE, rtol=0, atol=1e-6)


def test_skipping_pairs_leaves_the_gradients_of_the_dense_sum() -> None:
    expert_layer = layer(gate=TopKGateConfig(k=2))
    inputs = [torch.randn(6, 5) for _ in range(3)]
    upstream = torch.randn(3, 6, 4)
    parameters = list(expert_layer.parameters())

    h, p_BGE = mixed(expert_layer, inputs)
    sparse = torch.autograd.grad((torch.stack(h) * upstream).sum(), parameters)

    _, p_BGE = mixed(expert_layer, inputs)
    dense_h = mixed_by_hand(expert_layer, inputs, p_BGE)
    dense = torch.autograd.grad((torch.stack(dense_h) * upstream).sum(), parameters)
    torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-6)


def test_only_chosen_pairs_of_row_and_expert_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_per_expert: list[int] = []
    compute = MlpExperts.each

    def counting(self: MlpExperts, inputs: list[Tensor]) -> list[Tensor]:
        rows_per_expert.extend(x.shape[0] for x in inputs)
        return compute(self, inputs)

    monkeypatch.setattr(MlpExperts, "each", counting)
    expert_layer = layer(gate=TopKGateConfig(k=1))

    _, p_BGE = mixed(expert_layer, [torch.randn(50, 5)] * 3)

    chosen_BE = (p_BGE > 0).any(1)
    assert rows_per_expert == chosen_BE.sum(0).tolist()
    assert sum(rows_per_expert) < 50 * 5


def test_numbers_of_rows_recur_in_bf16_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_per_expert: list[int] = []
    compute = MlpExperts.each

    def counting(self: MlpExperts, inputs: list[Tensor]) -> list[Tensor]:
        rows_per_expert.extend(x.shape[0] for x in inputs)
        return compute(self, inputs)

    expert_layer = layer(gate=TopKGateConfig(k=2))
    inputs = [torch.randn(300, 5) for _ in range(3)]
    leaves = list(expert_layer.parameters())

    def of(h: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(torch.stack(list(h)).float().square().mean(), leaves, retain_graph=True)

    monkeypatch.setattr(MlpExperts, "each", counting)
    with torch.autocast("cpu", torch.bfloat16):
        h, p_BGE = mixed(expert_layer, inputs)
        expected = mixed_by_hand(expert_layer, inputs, p_BGE)

    torch.testing.assert_close(h, expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(of(h), of(expected), rtol=2e-2, atol=1e-3)
    # As many as chose it, and up to 63 others.
    chosen = (p_BGE > 0).any(1).sum(0).tolist()
    assert rows_per_expert == [number + -number % 64 for number in chosen]
    assert any(number % 64 for number in chosen)


def test_work_of_a_top_k_layer_is_k_experts_per_row() -> None:
    expert_layer = MixtureConfig(expert_hidden=(7, 4), gate=TopKGateConfig(k=2)).layer(
        experts={f"shared.{expert}": 0 for expert in range(10)},
        gates={"a": 0},
        mask_GE=[[True] * 10],
        in_features=5,
    )

    with FlopCounterMode(display=False) as counter:
        expert_layer([torch.randn(50, 5)])

    per_row_and_expert = sum(2 * inputs * width for inputs, width in pairwise((5, 7, 4)))
    gate = 50 * 2 * 5 * 10
    assert counter.get_total_flops() == 50 * 2 * per_row_and_expert + gate


def flops_of(step: Callable[[], Tensor]) -> int:
    """Floating point operations of a forward and a backward pass; torch does not count grouped products by itself."""
    grouped = {torch.ops.aten._grouped_mm: lambda a, b, *_, **__: 2 * a[0] * a[1] * b[-1]}
    with FlopCounterMode(display=False, custom_mapping=grouped) as counter:
        step().backward()
    total: int = counter.get_total_flops()
    return total


@pytest.mark.parametrize("form", ["loop", "batched"])
def test_top_2_of_16_experts_is_an_eighth_of_the_work_of_all(form: Form) -> None:
    def work_of_the_experts(gate: SoftmaxGateConfig | TopKGateConfig) -> int:
        expert_layer = MixtureConfig(expert_hidden=(16, 8), gate=gate).layer(
            experts={f"shared.{expert}": 0 for expert in range(16)},
            gates={"a": 0},
            mask_GE=[[True] * 16],
            in_features=24,
            form=form,
        )
        x_BD = torch.randn(64, 24)
        whole = flops_of(lambda: expert_layer([x_BD])[0][0].sum())
        return whole - flops_of(lambda: expert_layer.route([x_BD])[1].weights_BGE.square().sum())

    dense, sparse = work_of_the_experts(SoftmaxGateConfig()), work_of_the_experts(TopKGateConfig(k=2))

    # Forward and twice backward, but for the gradient of the input, which nothing asks for.
    per_row_and_expert = 2 * (2 * 24 * 16 + 3 * 16 * 8)
    assert sparse >= 64 * 2 * per_row_and_expert
    assert sparse * 8 == dense


def test_pair_that_two_gates_chose_is_computed_once() -> None:
    expert_layer = MixtureConfig(expert_hidden=(4,), gate=TopKGateConfig(k=3)).layer(
        experts={"shared.0": 0, "shared.1": 0, "shared.2": 0},
        gates={"a": 0, "b": 0},
        mask_GE=[[True] * 3] * 2,
        in_features=5,
    )

    with FlopCounterMode(display=False) as counter:
        expert_layer([torch.randn(50, 5)])

    experts, gates = 50 * 3 * 2 * 5 * 4, 2 * 50 * 2 * 5 * 3
    assert counter.get_total_flops() == experts + gates


@pytest.mark.parametrize("form", ["loop", "batched"])
@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=["softmax", "top_k"])
def test_gates_stay_float32_where_experts_run_in_bfloat16(form: Form, gate: SoftmaxGateConfig | TopKGateConfig) -> None:
    expert_layer = layer(form, gate)
    inputs = [torch.randn(6, 5) for _ in range(3)]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        h, p_BGE = mixed(expert_layer, inputs)

    exact_h, exact_p_BGE = mixed(expert_layer, inputs)
    assert p_BGE.dtype == torch.float32
    assert torch.equal(p_BGE, exact_p_BGE)
    assert {h_BH.dtype for h_BH in h} == {torch.bfloat16}
    torch.testing.assert_close([h_BH.float() for h_BH in h], exact_h, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("form", ["loop", "batched"])
@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=["softmax", "top_k"])
def test_gates_with_copies_of_their_own_mix_as_without(form: Form, gate: SoftmaxGateConfig | TopKGateConfig) -> None:
    expert_layer = layer(form, gate)
    inputs: list[Tensor | SidedInput] = [torch.randn(6, 5) for _ in range(3)]
    expected, _ = mixed(expert_layer, inputs)
    shared: list[Tensor] = []

    def fork(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        shared.extend(tensors)
        return [[tensor.clone() for tensor in tensors] for _ in range(3)]

    expert_layer.fork = fork
    found, _ = mixed(expert_layer, inputs)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    # The gate of the shared group sees every expert; what the host has not counted lies in one tensor.
    assert len(shared) == (1 if expert_layer.is_sparse and form == "batched" else 5)


def test_gates_may_read_other_inputs_than_experts() -> None:
    torch.manual_seed(0)
    expert_layer = MixtureConfig(expert_hidden=(7, 4)).layer(
        experts={"a.0": 0, "b.0": 1},
        gates={"a": 0, "b": 0},
        mask_GE=[[True, True]] * 2,
        in_features=5,
        gate_features=3,
    )
    inputs, read = [torch.randn(6, 5) for _ in range(2)], torch.randn(6, 3)

    h, use = expert_layer(inputs, gate_inputs=[read])

    expected = torch.softmax(read @ expert_layer.gates[1].weight_VD.t(), dim=1)
    torch.testing.assert_close(use.weights_BGE[:, 1], expected)
    torch.testing.assert_close(h, mixed_by_hand(expert_layer, inputs, use.weights_BGE), rtol=0, atol=1e-6)
