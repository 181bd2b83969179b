"""HoME: the paper's equations row by row, groups that keep tasks apart, and gates that let own experts learn."""

import re
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from recmoe.architectures.cgc import SHARED
from recmoe.architectures.home import FeatureGate, HoME, HoMEConfig, make_self_gate
from recmoe.axes import describe
from recmoe.errors import ConfigError
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts.normalized import NormalizedExpertConfig
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.mixture import MixtureConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from tests.parity.naive import HIDDEN, WIDTH, assert_equal_to_paper, mix, run_gate

Gate = SoftmaxGateConfig | TopKGateConfig

GROUPS = {"finish": "watch", "like": "act", "follow": "act"}


def model_of(
    group_of_task: dict[str, str],
    num_experts: tuple[int, int, int] = (2, 2, 2),
    *,
    num_feature_gates: int = 2,
    gate: Gate = SoftmaxGateConfig(),  # noqa: B008
) -> HoME:
    torch.manual_seed(0)
    mixture = MixtureConfig(expert_hidden=HIDDEN, expert=NormalizedExpertConfig(), gate=gate)
    return HoME(
        in_features=WIDTH,
        group_of_task=group_of_task,
        num_experts=num_experts,
        num_feature_gates=num_feature_gates,
        feature_rank=3,
        make_layer=partial(mixture.layer, make_gate=partial(make_self_gate, make_gate=gate.build)),
    )


def scaled(gate: FeatureGate, v_D: Tensor) -> Tensor:
    """v ⊗ Fea_Gate(v), which is the sum of 2 · sigmoid(v · B · A) over low-rank gates, weighted by a softmax."""
    downs = gate.down.weight.split(3)
    factors = [2 * torch.sigmoid(up_DR @ (down_RD @ v_D)) for up_DR, down_RD in zip(gate.up_LDR, downs, strict=True)]
    if gate.choose is None:
        return factors[0] * v_D
    shares = torch.exp(gate.choose.weight @ v_D)
    return mix(shares / shares.sum(), factors) * v_D


def expert(module: nn.Module, v_D: Tensor) -> Tensor:
    """MLP_E(v) = Swish(Norm(W · v + b)), layer by layer."""
    for layer, norm in zip(module.layers, module.norms, strict=True):
        z = layer.weight @ v_D + layer.bias
        deviation = (z - z.mean()).square().mean().add(1e-5).sqrt()
        z = (z - z.mean()) / deviation * norm.weight + norm.bias
        v_D = z / (1 + torch.exp(-z))
    return v_D


def outputs_of(layer: ExpertLayer, inputs: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """By owner, its experts on what it reads."""
    made: dict[str, list[Tensor]] = {owner: [] for owner in inputs}
    for name, module in zip(layer.expert_names, layer.experts.experts, strict=True):
        owner = name.rpartition(".")[0]
        made[owner].append(expert(module, inputs[owner]))
    return made


def gated(layer: ExpertLayer, name: str, v_D: Tensor, outputs: list[Tensor]) -> Tensor:
    """Σ_k Gate(v)_k · output_k; of a self gate over one expert, sigmoid(v · w) · output."""
    gate = layer.gates[layer.gate_names.index(name)]
    if len(outputs) == 1:
        return torch.sigmoid(gate.weight_VD[0] @ v_D) * outputs[0]
    return mix(run_gate(gate, v_D), outputs)


@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=lambda gate: gate.kind)
@pytest.mark.parametrize("groups", [{"a": "all"}, {"a": "all", "b": "all"}, GROUPS], ids=len)
@pytest.mark.parametrize("num_experts", [(1, 1, 1), (2, 2, 2), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("num_feature_gates", [1, 2])
@pytest.mark.parametrize("num_rows", [1, 4])
def test_representations_equal_the_equations_level_by_level(
    num_rows: int,
    num_feature_gates: int,
    num_experts: tuple[int, int, int],
    groups: dict[str, str],
    gate: Gate,
) -> None:
    model = model_of(groups, num_experts, num_feature_gates=num_feature_gates, gate=gate).double()
    names = [f"group {group}" for group in dict.fromkeys(groups.values())]

    def paper(x_D: Tensor) -> list[Tensor]:
        read = {
            owner: scaled(feature_gate, x_D)
            for owner, feature_gate in zip((SHARED, *names), model.lower_features, strict=True)
        }
        y = outputs_of(model.lower, read)
        z = {
            name: gated(model.lower, name, x_D, y[SHARED] + y[name]) + gated(model.lower, f"{name} alone", x_D, y[name])
            for name in names
        }
        every = [output for owner in (SHARED, *names) for output in y[owner]]
        z[SHARED] = gated(model.lower, SHARED, x_D, every)
        of_task = {task: f"group {group}" for task, group in groups.items()}
        sources = {SHARED: z[SHARED], **{name: z[name] for name in names}, **{t: z[g] for t, g in of_task.items()}}
        y = outputs_of(
            model.upper,
            {
                owner: scaled(feature_gate, source)
                for (owner, source), feature_gate in zip(sources.items(), model.upper_features, strict=True)
            },
        )
        h = []
        for task, group in of_task.items():
            v_D = torch.cat([z[group], z[SHARED]])
            h.append(
                gated(model.upper, task, v_D, y[SHARED] + y[group] + y[task])
                + gated(model.upper, f"{task} alone", v_D, y[task])
            )
        return h

    assert_equal_to_paper(model, paper, num_rows=num_rows, num_tasks=len(groups))


def test_task_sees_the_experts_of_all_of_its_group_and_its_own() -> None:
    _, (lower, upper) = model_of(GROUPS, (1, 1, 2))(torch.randn(4, WIDTH))

    def seen(use: object, gate: str) -> list[str]:
        row = use.visible_GE[use.gates.index(gate)]
        return [name for name, is_seen in zip(use.experts, row.tolist(), strict=True) if is_seen]

    assert seen(lower, "group act") == ["shared.0", "group act.0"]
    assert seen(lower, "shared") == ["shared.0", "group watch.0", "group act.0"]
    assert seen(upper, "like") == ["shared.0", "group act.0", "like.0", "like.1"]
    assert seen(upper, "like alone") == ["like.0", "like.1"]


def test_task_of_another_group_reaches_a_task_through_the_shared_stream_only() -> None:
    model = model_of(GROUPS)

    model(torch.randn(50, WIDTH))[0][0].sum().backward()

    def reached(level: ExpertLayer) -> set[str]:
        experts = zip(level.expert_names, level.experts.experts, strict=True)
        return {name.rpartition(".")[0] for name, module in experts if module.layers[0].weight.grad.any()}

    # The shared stream of the lower level mixes the experts of all groups.
    assert reached(model.lower) == {"shared", "group watch", "group act"}
    assert reached(model.upper) == {"shared", "group watch", "finish"}


def test_own_experts_learn_from_rows_whose_gate_prefers_others() -> None:
    model = model_of({"like": "act", "follow": "act"}, (1, 1, 2), gate=TopKGateConfig(k=1))
    h, (_, use) = model(torch.randn(50, WIDTH))
    own = [use.experts.index(name) for name in ("like.0", "like.1")]
    prefers_others_B = use.weights_BGE[:, use.gates.index("like"), own].sum(dim=1) == 0

    h[0][prefers_others_B].sum().backward()

    assert prefers_others_B.sum() > 5
    gradients = [model.upper.experts.experts[index].layers[0].weight.grad for index in own]
    assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def test_weights_are_named_by_groups_and_tasks() -> None:
    names = {one.name for one in describe(model_of(GROUPS)).values()}

    assert "upper_features[like].up_LDR" in names
    assert "lower_features[group act].down.weight" in names
    assert "upper.gates[like alone].weight_VD" in names
    assert "upper.experts.experts[group watch.1].norms.0.weight" in names


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ({"act": ("like",)}, "missing: finish; more than once: none; unknown: none"),
        ({"act": ("like",), "watch": ("finish", "like")}, "missing: none; more than once: like; unknown: none"),
        ({"act": ("like", "share"), "watch": ("finish",)}, "missing: none; more than once: none; unknown: share"),
    ],
)
def test_groups_that_do_not_hold_every_task_once_are_a_problem_of_the_config(
    groups: dict[str, tuple[str, ...]], problem: str
) -> None:
    tasks = TaskSet({"like": BinaryTaskConfig(label="like"), "finish": BinaryTaskConfig(label="finish")})
    message = f"groups must hold each of the tasks like, finish once; {problem}"
    config = HoMEConfig(groups=groups)

    problems = list(config.task_problems(tasks, ()))

    assert problems == [("groups", message)]
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.build(in_features=WIDTH, task_names=("like", "finish"))


def test_without_groups_there_is_one_for_all_tasks() -> None:
    model = HoMEConfig(expert_hidden=(4,)).build(in_features=WIDTH, task_names=("like", "finish"))

    assert model.lower.gate_names == ("group all", "shared", "group all alone")
