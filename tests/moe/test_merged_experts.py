"""Experts merged weight by weight, row by row: the same as a loop that merges them (SMEAR)."""

from typing import Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from recmoe.architectures import PLEConfig
from recmoe.config import Config
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import Form, MlpExperts
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.linear import SidedInput
from recmoe.moe.mixture import MixtureConfig

MASK = [[True, True, False, True], [False, True, True, True], [True] * 4]
FORMS = pytest.mark.parametrize("form", ["loop", "batched"])


def layer(
    form: Form = "auto",
    hidden: tuple[int, ...] = (8, 5, 4),
    gate: SoftmaxGateConfig | TopKGateConfig = SoftmaxGateConfig(),  # noqa: B008
    *,
    reads: tuple[int, ...] = (0, 0, 0, 0),
    dropout: float = 0.0,
) -> ExpertLayer:
    torch.manual_seed(0)
    return MixtureConfig(expert_hidden=hidden, gate=gate, mixes="weights", dropout=dropout).layer(
        experts={f"shared.{expert}": read for expert, read in enumerate(reads)},
        gates={"a": 0, "b": 0, "c": 0},
        mask_GE=MASK,
        in_features=6,
        form=form,
    )


def merged_by_hand(expert_layer: ExpertLayer, x_BD: Tensor, p_BGE: Tensor) -> list[Tensor]:
    """For every row and gate: one network, every weight of which is the mean of those of the experts."""
    experts = expert_layer.experts
    assert isinstance(experts, MlpExperts)
    layers = list(zip(experts.weights_EOD, experts.biases_EO, strict=True))
    h = []
    for gate in range(p_BGE.shape[1]):
        rows = []
        for x_D, p_E in zip(x_BD, p_BGE[:, gate], strict=True):
            y = x_D
            for weight_EOD, bias_EO in layers:
                weight_OD = sum(p * weight_EOD[expert] for expert, p in enumerate(p_E))
                bias_O = sum(p * bias_EO[expert] for expert, p in enumerate(p_E))
                y = torch.relu(weight_OD @ y + bias_O)
            rows.append(y)
        h.append(torch.stack(rows))
    return h


@FORMS
@pytest.mark.parametrize("hidden", [(4,), (8, 5, 4)])
@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=["softmax", "top_k"])
@pytest.mark.parametrize("num_rows", [1, 7])
def test_row_is_computed_by_one_expert_that_is_the_mean_of_those_it_sees(
    form: Form, hidden: tuple[int, ...], gate: SoftmaxGateConfig | TopKGateConfig, num_rows: int
) -> None:
    expert_layer = layer(form, hidden, gate)
    x_BD = torch.randn(num_rows, 6)

    h, use = expert_layer([x_BD])

    torch.testing.assert_close(h, merged_by_hand(expert_layer, x_BD, use.weights_BGE), rtol=1e-5, atol=1e-6)


@FORMS
def test_gradients_are_those_of_the_loop(form: Form) -> None:
    expert_layer = layer(form)
    x_BD = torch.randn(7, 6, requires_grad=True)
    leaves = [x_BD, *expert_layer.parameters()]

    h, _ = expert_layer([x_BD])
    found = torch.autograd.grad(torch.stack(h).square().sum(), leaves)

    _, use = expert_layer([x_BD])
    by_hand = torch.stack(merged_by_hand(expert_layer, x_BD, use.weights_BGE))
    torch.testing.assert_close(found, torch.autograd.grad(by_hand.square().sum(), leaves), rtol=1e-4, atol=1e-6)


def test_merging_weights_is_another_model_than_mixing_outputs() -> None:
    merging = layer()
    mixing = layer()
    mixing.mixes = "outputs"
    x_BD = torch.randn(50, 6)

    assert not torch.allclose(merging([x_BD])[0][0], mixing([x_BD])[0][0], atol=1e-3)


def test_gate_that_sees_one_expert_gives_that_ones_output() -> None:
    expert_layer = MixtureConfig(expert_hidden=(5, 4), mixes="weights").layer(
        experts={"a.0": 0, "b.0": 0}, gates={"a": 0}, mask_GE=[[False, True]], in_features=6
    )
    x_BD = torch.randn(7, 6)

    h, _ = expert_layer([x_BD])

    torch.testing.assert_close(h[0], expert_layer.experts([x_BD])[1])


@FORMS
def test_experts_of_different_inputs_meet_after_the_first_layer(form: Form) -> None:
    expert_layer = layer(form, (5,), reads=(0, 0, 1, 1))
    inputs = [torch.randn(7, 6), torch.randn(7, 6)]

    h, use = expert_layer(inputs)

    experts = expert_layer.experts
    assert isinstance(experts, MlpExperts)
    for gate, h_BH in enumerate(h):
        before_BO = sum(
            use.weights_BGE[:, gate, expert, None]
            * functional.linear(inputs[read], experts.weights_EOD[0][expert], experts.biases_EO[0][expert])
            for expert, read in enumerate((0, 0, 1, 1))
        )
        assert isinstance(before_BO, Tensor)
        torch.testing.assert_close(h_BH, torch.relu(before_BO))


def test_sided_input_equals_the_concatenated_one() -> None:
    expert_layer = layer()
    x = SidedInput(shared_RS=torch.randn(2, 4), own_CI=torch.randn(5, 2), request_C=torch.tensor([0, 0, 1, 1, 0]))

    h, _ = expert_layer([x])

    expected, _ = expert_layer([x.concatenated()])
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-6)


def test_activations_are_dropped_in_training_alone() -> None:
    expert_layer = layer(dropout=0.5)
    x_BD = torch.randn(50, 6)

    trained = [expert_layer([x_BD])[0][0] for _ in range(2)]
    expert_layer.eval()
    served = [expert_layer([x_BD])[0][0] for _ in range(2)]

    assert not torch.equal(*trained)
    torch.testing.assert_close(*served, rtol=0, atol=0)


@FORMS
def test_merged_experts_run_in_bfloat16_and_gates_do_not(form: Form) -> None:
    expert_layer = layer(form)
    x_BD = torch.randn(50, 6)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        h, use = expert_layer([x_BD])

    exact_h, exact_use = expert_layer([x_BD])
    assert torch.equal(use.weights_BGE, exact_use.weights_BGE)
    torch.testing.assert_close([h_BH.float() for h_BH in h], exact_h, rtol=0.02, atol=0.02)


def test_architecture_with_merged_experts_learns_a_planted_answer() -> None:
    torch.manual_seed(0)
    ple = PLEConfig(mixes="weights", expert_hidden=(16, 8)).build(in_features=6, task_names=("a", "b"))
    tower = torch.nn.Linear(8, 1)
    x_BD = torch.randn(256, 6)
    answer_B = x_BD[:, 1] * x_BD[:, 2]
    optimizer = torch.optim.Adam([*ple.parameters(), *tower.parameters()], lr=0.01)

    for _ in range(60):
        error = (tower(ple(x_BD)[0][0]).squeeze(1) - answer_B).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()

    assert error.item() < 0.3 * answer_B.var().item()


@pytest.mark.parametrize("expert", [{"kind": "gated"}, [{"kind": "mlp"}, {"kind": "identity"}]])
def test_experts_that_cannot_be_merged_are_refused(expert: object) -> None:
    with pytest.raises(ValidationError, match="experts cannot be merged; choose one kind of experts that can, such as"):
        MixtureConfig.model_validate({"expert": expert, "mixes": "weights"})


def test_experts_of_another_package_that_say_nothing_of_it_are_not_merged() -> None:
    class ForeignExpertConfig(Config):
        kind: Literal["foreign.expert"] = "foreign.expert"

    mixed = MixtureConfig.model_validate({"expert": ForeignExpertConfig(), "mixes": "outputs"})

    assert mixed.mixes == "outputs"
    with pytest.raises(ValidationError, match=r"weights of foreign\.expert experts cannot be merged"):
        MixtureConfig.model_validate({"expert": ForeignExpertConfig(), "mixes": "weights"})
