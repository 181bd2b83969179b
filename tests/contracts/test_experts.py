"""One contract for every kind of expert of the union, and for kinds that share a layer."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from recmoe.axes import describe
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.experts.stack import Divisible, ExpertStack
from recmoe.moe.linear import SidedInput
from recmoe.moe.mixture import MixtureConfig

KINDS = get_args(get_args(ExpertConfig)[0])
ALONE = [(config_class(),) for config_class in KINDS]
EVERY = [*ALONE, tuple(config_class() for config_class in KINDS)]
every_stack = pytest.mark.parametrize("kinds", EVERY, ids=lambda kinds: "+".join(kind.kind for kind in kinds))

READS = {"shared.0": 0, "shared.1": 0, "shared.2": 1, "shared.3": 0, "shared.4": 1, "shared.5": 1}


def stack_of(kinds: tuple[ExpertConfig, ...], *, in_features: int = 6, dropout: float = 0.0) -> ExpertStack:
    torch.manual_seed(0)
    layer = MixtureConfig(expert=kinds, expert_hidden=(6, 4), dropout=dropout).layer(
        experts=READS, gates={"a": 0}, mask_GE=[[True] * len(READS)], in_features=in_features
    )
    return layer.experts


def inputs_of(num_rows: int = 5) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(num_rows, 6), torch.randn(num_rows, 6)]


@pytest.mark.parametrize("config_class", KINDS, ids=lambda kind: kind.model_fields["kind"].default)
def test_kind_alone_is_a_config_that_works(config_class: type[ExpertConfig]) -> None:
    default = config_class()

    assert TypeAdapter(ExpertConfig).validate_python({"kind": default.kind}) == default


@every_stack
@pytest.mark.parametrize("num_rows", [0, 1, 5])
def test_every_expert_gives_rows_of_one_width(kinds: tuple[ExpertConfig, ...], num_rows: int) -> None:
    experts = stack_of(kinds)

    outputs = experts(inputs_of(num_rows))

    assert experts.names == tuple(READS)
    assert experts.input_of_expert == tuple(READS.values())
    assert [tuple(y_BH.shape) for y_BH in outputs] == [(num_rows, 4)] * len(READS)


@every_stack
def test_expert_reads_its_own_input_alone(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)
    first, second = inputs_of()

    before, after = experts([first, second]), experts([first, second + 1])

    is_same = [torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert is_same == [read == 0 for read in READS.values()]


@every_stack
def test_rows_of_its_own_give_what_all_rows_give(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)
    inputs = inputs_of()
    rows = [[0, 3], [], [1], [4, 2], [0, 1, 2, 3, 4], [2]]

    outputs = experts.each([inputs[read][chosen] for read, chosen in zip(READS.values(), rows, strict=True)])

    expected = [y_BH[chosen] for y_BH, chosen in zip(experts(inputs), rows, strict=True)]
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-6)


@every_stack
def test_a_part_of_the_experts_computes_what_all_do_with_weights_of_its_own(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)
    assert isinstance(experts, Divisible)
    assert isinstance(experts, nn.Module)
    chosen = [1, 2, 5]

    part = experts.part(chosen)

    assert part.names == tuple(experts.names[expert] for expert in chosen)
    assert part.input_of_expert == tuple(experts.input_of_expert[expert] for expert in chosen)
    expected = experts(inputs_of())
    torch.testing.assert_close(part(inputs_of()), [expected[expert] for expert in chosen], rtol=0, atol=1e-6)
    assert isinstance(part, nn.Module)
    assert not {id(weight) for weight in part.parameters()} & {id(weight) for weight in experts.parameters()}


@every_stack
def test_batched_gives_what_the_call_gives(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)

    y_EBH = experts.batched(inputs_of())

    torch.testing.assert_close(list(y_EBH.unbind(0)), experts(inputs_of()), rtol=0, atol=1e-6)


@every_stack
def test_sided_input_equals_the_concatenated_one(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)
    torch.manual_seed(1)
    inputs = [
        SidedInput(shared_RS=torch.randn(2, 4), own_CI=torch.randn(5, 2), request_C=torch.tensor([0, 0, 1, 1, 0]))
        for _ in range(2)
    ]

    outputs = experts(inputs)

    torch.testing.assert_close(outputs, experts([x.concatenated() for x in inputs]), rtol=0, atol=1e-6)


@every_stack
def test_gradient_reaches_the_inputs_and_all_weights(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)
    inputs = [x.requires_grad_() for x in inputs_of(50)]

    torch.stack(experts(inputs)).square().sum().backward()

    assert isinstance(experts, nn.Module)
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in inputs)
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in experts.parameters())


@every_stack
def test_experts_run_in_bfloat16_under_autocast(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)
    inputs = inputs_of()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = experts(inputs)

    exact = experts(inputs)
    torch.testing.assert_close([y_BH.float() for y_BH in outputs], exact, rtol=0.05, atol=0.05)


@every_stack
def test_every_weight_belongs_to_an_expert_by_name(kinds: tuple[ExpertConfig, ...]) -> None:
    experts = stack_of(kinds)
    assert isinstance(experts, nn.Module)

    described = describe(experts)

    assert set(described) == set(experts.state_dict())
    for weight in described.values():
        in_axes = [label for labels in weight.axes if labels is not None for label in labels]
        assert in_axes or "[shared." in weight.name
