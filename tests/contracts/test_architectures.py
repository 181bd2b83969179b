"""One contract for every architecture x → h of the union, with every gate where it has gates."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.towers import TowerKind
from recmoe.moe.gates import GateConfig
from recmoe.moe.gates.gate import untaught_by
from recmoe.moe.linear import SidedInput, id_group

GATES = [gate_class() for gate_class in get_args(get_args(GateConfig)[0])]
KINDS = [kind for kind in get_args(get_args(ArchitectureConfig)[0]) if issubclass(kind, TowerKind)]


def variants() -> list[ArchitectureConfig]:
    """Every architecture with its defaults, and again with every other gate."""
    configs = []
    for config_class in KINDS:
        with_gates = [config_class(gate=gate) for gate in GATES] if "gate" in config_class.model_fields else []
        configs += with_gates or [config_class()]
    return configs


def name(config: ArchitectureConfig) -> str:
    gate = getattr(config, "gate", None)
    return config.kind if gate is None else f"{config.kind}-{gate.kind}"


every_architecture = pytest.mark.parametrize("config", variants(), ids=name)


def built(config: ArchitectureConfig, tasks: tuple[str, ...] = ("ctr", "cvr"), *, seed: int = 0) -> nn.Module:
    """As it serves: a gate may draw while it trains."""
    torch.manual_seed(seed)
    return config.build(in_features=6, task_names=tasks).eval()


def size_of(h: list[torch.Tensor]) -> float:
    """The largest number, at least 1: rounding is in proportion to it."""
    return max(1.0, *(h_BH.detach().abs().max().item() for h_BH in h))


@pytest.mark.parametrize("config_class", KINDS, ids=lambda kind: kind.model_fields["kind"].default)
def test_kind_alone_is_a_config_that_works(config_class: type[ArchitectureConfig]) -> None:
    default = config_class()

    parsed = TypeAdapter(ArchitectureConfig).validate_python({"kind": default.kind})

    assert parsed == default


@every_architecture
@pytest.mark.parametrize("tasks", [("ctr",), ("ctr", "cvr"), ("a", "b", "c", "d")], ids=len)
@pytest.mark.parametrize("num_rows", [1, 5])
def test_every_task_gets_a_representation(config: ArchitectureConfig, tasks: tuple[str, ...], num_rows: int) -> None:
    architecture = built(config, tasks)

    h, _ = architecture(torch.randn(num_rows, 6))

    assert [tuple(h_BH.shape) for h_BH in h] == [(num_rows, architecture.out_features)] * len(tasks)


@every_architecture
def test_gate_uses_name_their_axes_and_hold_shares(config: ArchitectureConfig) -> None:
    architecture = built(config, ("a", "b", "c"))

    _, uses = architecture(torch.randn(5, 6))

    assert [use.level for use in uses] == list(range(len(uses)))
    for use in uses:
        assert use.weights_BGE.shape == (5, len(use.gates), len(use.experts))
        assert len(set(use.experts)) == len(use.experts)
        if all(gate.sums_to_one for gate in architecture.modules() if hasattr(gate, "sums_to_one")):
            torch.testing.assert_close(use.weights_BGE.sum(2), torch.ones(5, len(use.gates)))
        if use.visible_GE is not None:
            assert use.visible_GE.shape == use.weights_BGE.shape[1:]
            assert use.weights_BGE[:, ~use.visible_GE].abs().sum() == 0


@every_architecture
def test_row_does_not_depend_on_its_neighbours(config: ArchitectureConfig) -> None:
    architecture = built(config)
    x_BD = torch.randn(5, 6)

    h, _ = architecture(x_BD)

    single = [architecture(x_1D)[0] for x_1D in x_BD.split(1)]
    for task, h_BH in enumerate(h):
        torch.testing.assert_close(torch.cat([row[task] for row in single]), h_BH, rtol=0, atol=3e-6 * size_of(h))


@every_architecture
@pytest.mark.parametrize("num_requests", [1, 3])
def test_sided_input_equals_the_concatenated_one(config: ArchitectureConfig, num_requests: int) -> None:
    architecture = built(config)
    x = SidedInput(
        shared_RS=torch.randn(num_requests, 4),
        own_CI=torch.randn(20, 2),
        request_C=torch.randint(num_requests, (20,)),
    )

    h, uses = architecture(x)

    plain_h, plain_uses = architecture(x.concatenated())
    torch.testing.assert_close(h, plain_h, rtol=0, atol=3e-6 * size_of(h))
    for use, plain_use in zip(uses, plain_uses, strict=True):
        torch.testing.assert_close(use.weights_BGE, plain_use.weights_BGE, rtol=0, atol=1e-6)


@every_architecture
def test_every_parameter_gets_a_gradient_but_for_what_a_gate_says(config: ArchitectureConfig) -> None:
    gate = getattr(config, "gate", None)
    features = {} if gate is None else dict.fromkeys(gate.id_features(), "user")
    if features:
        config = config.model_copy(update={"gate": gate.model_copy(update=features)})
    architecture = built(config).train()

    h, _ = architecture(torch.randn(200, 6), {id_group("user"): torch.arange(200)})
    sum(h_BH.square().sum() for h_BH in h).backward()

    without = [key for key, value in architecture.named_parameters() if value.grad is None or not value.grad.any()]
    untaught = () if gate is None else tuple(f".{name}" for name in untaught_by(gate))
    assert [key for key in without if not (".gates." in f".{key}" and key.endswith(untaught))] == []


@every_architecture
def test_seed_decides_the_weights_and_experts_differ(config: ArchitectureConfig) -> None:
    first, same, other = built(config, seed=0), built(config, seed=0), built(config, seed=1)

    pairs = list(zip(first.parameters(), same.parameters(), other.parameters(), strict=True))
    rows = [row for parameter in first.parameters() if parameter.dim() == 3 for row in parameter.flatten(1)]

    # Some weights begin where no seed decides: at zero or one, or as a matrix with a diagonal.
    drawn = [(a, c) for a, _, c in pairs if a.unique().numel() > 2]
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert drawn
    assert not any(torch.equal(a, c) for a, c in drawn)
    assert len({tuple(row[:20].tolist()) for row in rows}) == len(rows)


@every_architecture
def test_weights_survive_a_state_dict(config: ArchitectureConfig) -> None:
    architecture, copy = built(config, seed=0), built(config, seed=1)
    x_BD = torch.randn(5, 6)

    copy.load_state_dict(architecture.state_dict())

    torch.testing.assert_close(copy(x_BD)[0], architecture(x_BD)[0], rtol=0, atol=0)
    assert {key.rsplit(".", 1)[-1] for key in architecture.state_dict()} & {"visible_GE", "column_V"} == set()


@every_architecture
def test_bfloat16_experts_stay_close_to_float32(config: ArchitectureConfig) -> None:
    architecture = built(config)
    x_BD = torch.randn(50, 6)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        h, uses = architecture(x_BD)

    exact, _ = architecture(x_BD)
    assert all(use.weights_BGE.dtype == torch.float32 for use in uses)
    for h_BH, exact_BH in zip(h, exact, strict=True):
        # A row whose k-th and next expert are near equal may choose another one at a later level.
        close_B = (h_BH.float() - exact_BH).abs().amax(1) < 0.03 * size_of(exact)
        assert close_B.float().mean() > 0.9


@every_architecture
def test_architecture_learns_a_planted_answer(config: ArchitectureConfig) -> None:
    architecture = built(config).train()
    towers = nn.ModuleList(nn.Linear(architecture.out_features, 1) for _ in range(2))
    x_BD = torch.randn(128, 6)
    answers = [x_BD[:, 0].abs(), x_BD[:, 1] * x_BD[:, 2]]
    optimizer = torch.optim.Adam([*architecture.parameters(), *towers.parameters()], lr=0.005)

    # Experts that are switched on one by one, or drawn, take longer; most are there after 40 steps.
    for _ in range(200):
        h, _ = architecture(x_BD)
        errors = [
            (tower(h_BH).squeeze(1) - answer).square().mean()
            for tower, h_BH, answer in zip(towers, h, answers, strict=True)
        ]
        optimizer.zero_grad()
        sum(errors).backward()
        optimizer.step()
        left = [error.item() / answer.var().item() for error, answer in zip(errors, answers, strict=True)]
        if max(left) < 0.3:
            break

    assert max(left) < 0.3
