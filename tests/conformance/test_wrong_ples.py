"""Three PLEs that differ from the paper, each as it is found in public code, are told from the right one."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from recmoe.architectures import PLE, PLEConfig
from recmoe.architectures.cgc import SHARED, experts_by_task
from recmoe.conformance import Outcome, check, subject_of
from recmoe.moe.expert_layer import ExpertLayer, GateUse
from recmoe.moe.linear import NO_GROUPS, Groups
from recmoe.moe.mixture import MakeLayer

# As wide as the input, so that an upper gate can be fed with it.
HIDDEN = (16, 6)
IN_ORDER = "gradients flow as declared"
EQUAL = "equal to a naive loop"
DIFFER = "experts differ at the start"


class RightPLEConfig(PLEConfig):
    expert_hidden: tuple[int, ...] = HIDDEN


class NarrowSharedGateConfig(RightPLEConfig):
    """The shared gate sees the shared experts alone."""

    kind: Literal["narrow_shared_gate"] = "narrow_shared_gate"

    def build(self, *, in_features: int, task_names: Sequence[str]) -> PLE:
        return ple_of(self, partial(self._narrow, self.layer), in_features=in_features, task_names=task_names)

    @staticmethod
    def _narrow(
        make_layer: MakeLayer, *, experts: Mapping[str, int], gates: Mapping[str, int], mask_GE: Any, **others: Any
    ) -> ExpertLayer:
        shared = [name.startswith(SHARED) for name in experts]
        masks = [shared if gate == SHARED else row for gate, row in zip(gates, mask_GE, strict=True)]
        return make_layer(experts=experts, gates=gates, mask_GE=masks, **others)


class RawUpperGatesConfig(RightPLEConfig):
    """The gates of every level read the input."""

    kind: Literal["raw_upper_gates"] = "raw_upper_gates"

    def build(self, *, in_features: int, task_names: Sequence[str]) -> PLE:
        make_layer = partial(self._fed_with_the_input, self.layer, len(task_names) + 1)
        return ple_of(self, make_layer, RawPLE, in_features=in_features, task_names=task_names)

    @staticmethod
    def _fed_with_the_input(
        make_layer: MakeLayer, num_streams: int, *, gates: Mapping[str, int], level: int, **others: Any
    ) -> ExpertLayer:
        read = 0 if level == 0 else num_streams
        return make_layer(gates=dict.fromkeys(gates, read), level=level, **others)


class RawPLE(PLE):
    def forward(self, x: Any, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        h: list[Tensor] = []
        uses = []
        for level, layer in enumerate(self.levels):
            h, use = layer([x] if level == 0 else [*h, x], groups)
            uses.append(use)
        return h, uses


class AlikeExpertsConfig(RightPLEConfig):
    """All experts of a level begin with the weights of the first."""

    kind: Literal["alike_experts"] = "alike_experts"

    def build(self, *, in_features: int, task_names: Sequence[str]) -> PLE:
        return self._alike(super().build(in_features=in_features, task_names=task_names))

    def _alike(self, ple: PLE) -> PLE:
        with torch.no_grad():
            for level in ple.levels:
                for weight in level.experts.parameters():
                    weight.copy_(weight[:1].expand_as(weight))
        return ple


class ConstantExpertsConfig(AlikeExpertsConfig):
    """Every weight of an expert begins as the same number, one per expert."""

    def _alike(self, ple: PLE) -> PLE:
        with torch.no_grad():
            for level in ple.levels:
                for weight in level.experts.parameters():
                    for expert, of_expert in enumerate(weight, start=1):
                        of_expert.fill_(expert / 10)
        return ple


def ple_of(config: PLEConfig, make_layer: MakeLayer, cls: type[PLE] = PLE, *, in_features: int, task_names: Any) -> PLE:
    return cls(
        in_features=in_features,
        num_levels=config.num_levels,
        num_task_experts=experts_by_task(config.num_task_experts, task_names),
        num_shared_experts=config.num_shared_experts,
        make_layer=make_layer,
    )


def ple_loop(ple: nn.Module, x_D: Tensor) -> list[Tensor]:
    """Tang et al. 2020, equations 5-8, with two experts per owner."""
    tasks = [name for name in ple.levels[-1].gate_names if name != SHARED]
    streams = dict.fromkeys([*tasks, SHARED], x_D)
    for layer in ple.levels:
        outputs: dict[str, list[Tensor]] = {owner: [] for owner in streams}
        for index, name in enumerate(layer.expert_names):
            owner = name.split(".")[0]
            y = streams[owner]
            for weight_EOD, bias_EO in zip(layer.experts.weights_EOD, layer.experts.biases_EO, strict=True):
                y = torch.relu(weight_EOD[index] @ y + bias_EO[index])
            outputs[owner].append(y)
        mixed = {}
        for gate, name in zip(layer.gates, layer.gate_names, strict=True):
            seen = [*tasks, SHARED] if name == SHARED else [name, SHARED]
            experts = [y for owner in seen for y in outputs[owner]]
            # A gate that sees fewer experts than the paper's is not the paper's.
            weights_V = torch.softmax(gate.weight_VD @ streams[name], dim=0)
            mixed[name] = sum(weight * y for weight, y in zip(weights_V, experts, strict=True))
        streams = mixed
    return [streams[task] for task in tasks]


def failures(config_class: type[PLEConfig]) -> dict[str, str]:
    outcomes: list[Outcome] = check(subject_of(config_class, loop=ple_loop))
    return {outcome.property: outcome.sentence for outcome in outcomes if outcome.verdict == "failed"}


def test_right_ple_has_nothing_to_mend() -> None:
    outcomes = check(subject_of(RightPLEConfig, loop=ple_loop))

    verdicts = {outcome.property: outcome.verdict for outcome in outcomes}
    assert {name for name, verdict in verdicts.items() if verdict != "passed"} == {"own losses are as named"}


def test_shared_gate_that_sees_only_shared_experts_is_found() -> None:
    found = failures(NarrowSharedGateConfig)

    assert found.keys() == {IN_ORDER, EQUAL}
    assert found[IN_ORDER] == (
        "of level 0, the loss of buy moves the experts of buy, shared; declared are those of buy, click, rate, shared"
    )


def test_upper_gates_fed_with_the_input_are_found() -> None:
    found = failures(RawUpperGatesConfig)

    assert found.keys() == {IN_ORDER, EQUAL}
    assert found[IN_ORDER] == (
        "of level 0, the gate above of buy reads the experts of no one; declared are those of buy, shared"
    )


@pytest.mark.parametrize(
    ("config_class", "sentence"),
    [
        (AlikeExpertsConfig, "click.0 and click.1 on level 0 begin with the same weights"),
        (ConstantExpertsConfig, "all weights of click.0 on level 0 begin as 0.1"),
    ],
)
def test_experts_initialised_alike_are_found(config_class: type[PLEConfig], sentence: str) -> None:
    found = failures(config_class)

    assert found[DIFFER] == sentence
