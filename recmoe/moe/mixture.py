"""MixtureConfig: what every mixture of experts asks for; and the layers that are made of it."""

# G gates, E experts

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import Field, PositiveInt, ValidationInfo, field_validator
from torch import nn

from recmoe.config import Config
from recmoe.errors import ConfigError
from recmoe.moe.expert_layer import ExpertLayer, Mixes
from recmoe.moe.experts import ExpertConfig, ExpertStack, Form, MlpExpertConfig
from recmoe.moe.experts.mixed import MixedExperts
from recmoe.moe.experts.stack import ExpertKind
from recmoe.moe.gates import GateConfig, SoftmaxGateConfig
from recmoe.moe.gates.gate import MakeGate
from recmoe.moe.hyper_experts import HyperExpertsConfig
from recmoe.moe.layer_extras import JointChoice


class MakeLayer(Protocol):
    """What builds a layer, such as the ``layer`` of a mixture's config."""

    def __call__(
        self,
        *,
        experts: Mapping[str, int],
        gates: Mapping[str, int],
        mask_GE: Sequence[Sequence[bool]],
        in_features: int,
        gate_features: int | None = None,
        level: int = 0,
        make_gate: MakeGate | None = None,
        around: nn.Module | None = None,
        choice: JointChoice | None = None,
    ) -> ExpertLayer:
        """The layer; see ``MixtureConfig``."""
        ...


class MixtureConfig(Config):
    """Experts and gates, as every mixture takes them."""

    expert_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of an expert."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an expert's activations dropped in training."""
    expert_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which a row leaves out an expert of a gate in training; the other weights grow to make up."""
    expert: ExpertConfig | Annotated[tuple[ExpertConfig, ...], Field(min_length=1)] = MlpExpertConfig()
    """What an expert is; of a list, each owner's experts take one kind after the other."""
    gate: GateConfig = SoftmaxGateConfig()
    """How rows choose their experts."""
    mixes: Mixes = "outputs"
    """What gates mix: outputs of experts; or their weights, so that one merged expert computes a row (SMEAR)."""

    unchosen: HyperExpertsConfig | None = None
    """What experts that a row did not choose add all the same (HyperMoE), to what sparse gates mix; nothing by
    default."""

    @field_validator("mixes")
    @classmethod
    def _can_merge(cls, mixes: Mixes, info: ValidationInfo) -> Mixes:
        experts = info.data.get("expert", ())
        kinds = experts if isinstance(experts, tuple) else (experts,)
        # A kind of another package may say nothing of it.
        can_merge = len(kinds) == 1 and isinstance(kinds[0], ExpertKind) and kinds[0].can_merge
        if mixes == "weights" and not can_merge:
            raise ValueError(
                f"weights of {' and '.join(dict.fromkeys(kind.kind for kind in kinds))} experts cannot be merged; "
                "choose one kind of experts that can, such as expert: {kind: mlp}"
            )
        return mixes

    def layer(
        self,
        *,
        experts: Mapping[str, int],
        gates: Mapping[str, int],
        mask_GE: Sequence[Sequence[bool]],
        in_features: int,
        gate_features: int | None = None,
        level: int = 0,
        make_gate: MakeGate | None = None,
        around: nn.Module | None = None,
        choice: JointChoice | None = None,
        form: Form = "auto",
    ) -> ExpertLayer:
        """A layer of these experts and gates, with weights drawn from torch's global generator; see ``ExpertLayer``.

        Args:
            experts: by name, which of the inputs each reads; names such as ctr.0 and shared.1 say the owner, and
                which of its experts.
            gates: by name, which of the inputs each reads.
            mask_GE: which experts each gate sees, at least one.
            in_features: D.
            gate_features: width of what gates read, where that is not what experts read.
            level: of the layer in its model.
            make_gate: builds gates that are made of those of the mixture, in their place.
            around: what weights experts around the gates; see ``ExpertLayer``.
            choice: what the gates choose together; without it each chooses by itself.
            form: how the experts are computed.

        Raises:
            ConfigError: gates that leave no expert out, with a say for those that are.
        """
        make_gate = make_gate or self.gate.build
        stack = self._experts(experts, in_features=in_features, form=form)
        width = gate_features or in_features
        made = [make_gate(in_features=width, num_experts=sum(row)) for row in mask_GE]
        unchosen = None
        if self.unchosen is not None:
            if not all(gate.is_sparse for gate in made):
                raise ConfigError(
                    f"model.architecture.unchosen: {self.gate.kind} gates give every expert a weight and leave none "
                    "unchosen while they train; drop it, or choose sparse ones, such as gate: {kind: top_k}"
                )
            unchosen = self.unchosen.build(
                expert_names=tuple(experts), in_features=width, out_features=stack.out_features
            )
        return ExpertLayer(
            experts=stack,
            gates=made,
            gate_names=tuple(gates),
            input_of_gate=tuple(gates.values()),
            mask_GE=mask_GE,
            level=level,
            expert_dropout=self.expert_dropout,
            mixes=self.mixes,
            around=around,
            choice=choice,
            unchosen=unchosen,
        )

    def _experts(self, reads: Mapping[str, int], *, in_features: int, form: Form) -> ExpertStack:
        kinds = self.expert if isinstance(self.expert, tuple) else (self.expert,)
        kind_of_expert = {name: int(name.rpartition(".")[2]) % len(kinds) for name in reads}
        used = sorted(set(kind_of_expert.values()))
        stacks: list[ExpertStack] = [
            kinds[kind].build(
                reads={name: read for name, read in reads.items() if kind_of_expert[name] == kind},
                in_features=in_features,
                hidden=self.expert_hidden,
                dropout=self.dropout,
                form=form,
            )
            for kind in used
        ]
        if len(stacks) == 1:
            return stacks[0]
        return MixedExperts(
            stacks,
            stack_names=[f"{kinds[kind].kind}.{kind}" for kind in used],
            stack_of_expert=[used.index(kind) for kind in kind_of_expert.values()],
        )
