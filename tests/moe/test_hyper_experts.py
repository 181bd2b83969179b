"""HyperMoE: the same as a loop that generates a network for every row, and what of it reaches which expert."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recmoe.architectures import MMoEConfig, PLEConfig
from recmoe.conformance import check
from recmoe.conformance.subject import Subject
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gates import GateConfig, SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.hyper_experts import HyperExperts, HyperExpertsConfig
from recmoe.moe.mixture import MixtureConfig
from recmoe.ranking import Ranker
from recmoe.runs.train import RunResult
from tests.parity.of_runs import weights

MASK = [[True, True, False, True], [False, True, True, True], [True] * 4]
SIZES = HyperExpertsConfig(embedding=3, hidden=5, bottleneck=2)


def layer_of(
    unchosen: HyperExpertsConfig | None,
    *,
    gate: GateConfig = TopKGateConfig(k=2),  # noqa: B008
    mask_GE: Sequence[Sequence[bool]] = MASK,
) -> ExpertLayer:
    torch.manual_seed(0)
    layer = MixtureConfig(expert_hidden=(6, 4), gate=gate, unchosen=unchosen).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)},
        gates={"a": 0, "b": 1, "c": 0},
        mask_GE=mask_GE,
        in_features=5,
    )
    if unchosen is not None:
        # Drawn anew, so that what stands at zero at first counts too.
        for weight in layer.unchosen.parameters():
            torch.nn.init.normal_(weight)
    return layer


def generated(hyper: HyperExperts, x_D: Tensor, unchosen: Sequence[int]) -> Tensor:
    """The output of the network that the paper's hypernetwork generates, with its matrices written out."""
    mean = torch.zeros(3)
    for expert in unchosen:
        mean += hyper.embeddings_EK[expert] / len(unchosen)
    c = torch.relu(hyper.hidden(hyper.select(mean)))
    down, down_bias = hyper.down_CAD[5].clone(), hyper.down_bias_CA[5].clone()
    up, up_bias = hyper.up_CAH[5].clone(), hyper.up_bias_CH[5].clone()
    for unit in range(5):
        down += c[unit] * hyper.down_CAD[unit]
        down_bias += c[unit] * hyper.down_bias_CA[unit]
        up += c[unit] * hyper.up_CAH[unit]
        up_bias += c[unit] * hyper.up_bias_CH[unit]
    return torch.relu(down @ x_D + down_bias) @ up + up_bias


@pytest.mark.parametrize("k", [1, 2, 3])
def test_layer_equals_a_loop_that_generates_a_network_for_every_row(k: int) -> None:
    with_unchosen = layer_of(SIZES, gate=TopKGateConfig(k=k)).requires_grad_(False)
    without = layer_of(None, gate=TopKGateConfig(k=k)).requires_grad_(False)
    without.load_state_dict(with_unchosen.state_dict(), strict=False)
    inputs = [torch.randn(6, 5), torch.randn(6, 5)]

    h, use = with_unchosen(inputs)

    plain, _ = without(inputs)
    for gate, read in enumerate([0, 1, 0]):
        for row in range(6):
            seen = [expert for expert, is_seen in enumerate(MASK[gate]) if is_seen]
            unchosen = [expert for expert in seen if use.weights_BGE[row, gate, expert] == 0]
            assert len(unchosen) == len(seen) - min(k, len(seen))
            expected = plain[gate][row] + generated(with_unchosen.unchosen, inputs[read][row], unchosen)
            torch.testing.assert_close(h[gate][row], expected, rtol=1e-4, atol=1e-4)


def test_row_moves_the_embeddings_of_the_experts_that_it_did_not_choose_alone() -> None:
    layer = layer_of(SIZES, mask_GE=[[True] * 4] * 3)

    h, use = layer([torch.randn(1, 5)] * 2)
    h[0].sum().backward()

    moved_E = layer.unchosen.embeddings_EK.grad.abs().sum(dim=1) > 0
    assert moved_E.tolist() == (use.weights_BGE[0, 0] == 0).tolist()


def test_layer_begins_almost_as_it_would_be_without() -> None:
    torch.manual_seed(0)
    hyper = HyperExpertsConfig().build(
        expert_names=[f"shared.{expert}" for expert in range(8)], in_features=50, out_features=20
    )

    (added_BH,) = hyper([torch.randn(100, 50)], reads=[0], is_unchosen_BGE=torch.rand(100, 1, 8) < 0.5)

    assert 0 < added_BH.abs().max() < 0.02


@pytest.mark.parametrize("config_class", [MMoEConfig, PLEConfig])
def test_architecture_with_unchosen_experts_holds_to_all_that_architectures_must(
    config_class: type[MMoEConfig] | type[PLEConfig],
) -> None:
    # Small next to the experts: their work is counted, and what is skipped of it.
    sizes = HyperExpertsConfig(embedding=4, hidden=4, bottleneck=2)
    config = config_class(gate=TopKGateConfig(k=2), unchosen=sizes, expert_hidden=(128, 64))

    outcomes = check(Subject(config))

    assert not [outcome for outcome in outcomes if outcome.verdict == "failed"]


def test_bundle_of_a_run_with_unchosen_experts_serves_what_it_trained(
    train: Callable[..., RunResult], make_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    choices = ("model.architecture.gate={kind: top_k, k: 1}", "model.architecture.unchosen={}")

    run = train(make_experiment(tmp_path, *choices), tmp_path / "run")

    # Loading replays rows that the model scored while it trained.
    Ranker.load(run.folder.bundle)
    assert any(name.endswith("unchosen.embeddings_EK") for name in weights(run))


def test_gates_that_leave_no_expert_out_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"architecture\.unchosen: softmax gates give every expert a weight .* such as gate: \{kind: top_k\}",
    ):
        layer_of(SIZES, gate=SoftmaxGateConfig())
