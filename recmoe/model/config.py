"""ModelConfig: the section ``model`` of a config."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import Field
from torch import nn

from recmoe.architectures import ArchitectureConfig, MMoEConfig
from recmoe.architectures.seam import Parts
from recmoe.architectures.trunks import NoTrunkConfig, TrunkConfig
from recmoe.architectures.trunks.trunk import TrunkKind
from recmoe.balancing.rules import BalancingConfig, NoBalancingConfig
from recmoe.balancing.weightings import FixedWeightingConfig, WeightingConfig
from recmoe.config import Config
from recmoe.features.labels import LabelColumn
from recmoe.model.imitation import DistillationConfig
from recmoe.model.position import PositionConfig
from recmoe.model.pretraining import PretrainingConfig
from recmoe.model.wide import LinearWideConfig, WideConfig
from recmoe.moe.balance import BalanceConfig, balance_terms
from recmoe.moe.gates import GateConfig
from recmoe.moe.gates.gate import Detail, GateKind, details_of
from recmoe.moe.mixture import MixtureConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig

DEFAULT_UNKNOWN_SHARE = 0.01
"""Share of the ids that are hidden where nothing is known of new ones."""
MAX_UNKNOWN_SHARE = 0.5


class ModelConfig(Config):
    """Everything between the tables and the loss."""

    architecture: ArchitectureConfig = MMoEConfig()
    """How tasks share experts."""
    trunk: TrunkConfig = NoTrunkConfig()
    """What turns the features into one vector that the architecture reads in their place; nothing by default."""
    towers: TowerConfig = TowerConfig()
    """The head of each task."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Features that a gate or an architecture reads by a name of its own, such as ``domain: [country, page]``."""
    wide: WideConfig = LinearWideConfig()
    """What stands beside the experts: a linear part over ids and numbers, or nothing."""
    position: PositionConfig | None = None
    """What the place where the log showed a row adds to its logits, in training alone; nothing by default."""
    weighting: WeightingConfig = FixedWeightingConfig()
    """How the losses of the tasks become one."""
    balancing: BalancingConfig = NoBalancingConfig()
    """How the gradients that the tasks send to what they share become one."""
    distillation: DistillationConfig = DistillationConfig()
    """How a student learns from a teacher, where it has one."""
    pretraining: PretrainingConfig | None = None
    """What is hidden and guessed where the model learns without labels, as ``recmoe pretrain`` has it."""
    balance: BalanceConfig = 0.0
    """What keeps gates from leaving experts unused: terms by name, such as ``even: {kind: switch, weight: 0.01}``; a
    number is the weight of importance alone."""
    unknown_share: Literal["auto"] | Annotated[float, Field(ge=0.0, lt=1.0)] = "auto"
    """Share of the ids that a training step reads as unknown, so that row 0 learns what a new id is worth; auto is, for
    each feature, the share of its ids in the validation split that training has not seen, from 0.01 to 0.5."""

    def with_summed_losses(self) -> Self:
        """With tasks weighted as they say, and nothing that balances their gradients."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in ("weighting", "balancing")})

    def assemble(self, parts: Parts) -> nn.Module:
        """The model that reads the inputs: the architecture on its trunk; see ``ArchitectureKind.assemble``."""
        return self.trunk.below(self.architecture, parts)

    def read_groups(self, widths: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
        """Features by the name of a group: those that the config names, and those that the trunk reads.

        Args:
            widths: floats of every feature, in the order of x_BD.
        """
        return {**self.groups, **self.trunk.groups(widths, self.groups)}

    def task_problems(self, tasks: TaskSet) -> Iterator[tuple[str, str]]:
        """What does not fit the tasks or the architecture, as (key below the section, message)."""
        for key, problem in self.architecture.task_problems(tasks, tuple(self.groups)):
            yield f"architecture.{key}", problem
        yield from ((f"trunk.{key}", problem) for key, problem in self.trunk.group_problems(tuple(self.groups)))
        if isinstance(self.trunk, TrunkKind) and self.architecture.copies(tasks):
            yield (
                "trunk.kind",
                f"{self.architecture.kind} reads several vectors of every id, and nothing of a trunk; drop it, or "
                "choose another model.architecture.kind",
            )
        if self.position is not None:
            yield from ((f"position.{key}", problem) for key, problem in self.position.task_problems(tasks))
        yield from self._balance_problems()
        if self.balancing.kind == "none":
            if self.weighting.reads_gradients:
                yield (
                    "weighting.kind",
                    f"{self.weighting.kind} reads the gradients of the tasks: set model.balancing.kind, to sum where "
                    "they shall be added up as ever",
                )
            return
        if not self.architecture.can_fork:
            yield (
                "balancing.kind",
                f"{self.architecture.kind} has no one place at which tasks read what they share; drop it, or choose "
                "another model.architecture.kind",
            )
        if isinstance(self.architecture, MixtureConfig) and self.architecture.mixes == "weights":
            yield (
                "balancing.kind",
                "merged experts have no outputs at which tasks could read what they share; drop it, or set "
                "model.architecture.mixes to outputs",
            )
        if isinstance(self.architecture, MixtureConfig) and self.architecture.unchosen is not None:
            yield (
                "balancing.kind",
                "what unchosen experts add is shared, and tasks read no copies of it; drop it, or "
                "model.architecture.unchosen",
            )
        if len(tasks.tower_names) < 2:
            yield "balancing.kind", "there is one task, whose gradients meet no others; drop it"
        products = ", ".join(name for name in tasks.names if name not in tasks.tower_names)
        if self.weighting.reads_gradients and products:
            yield (
                "weighting.kind",
                f"{self.weighting.kind} reads the gradient of each task by itself, and {products} has none, as a "
                "product of others; choose another",
            )

    def id_features(self) -> Mapping[str, str | None]:
        """Features whose ids the model reads, by the key below the section; None where it has to name one."""
        named: dict[str, str | None] = {
            f"architecture.{key}": feature for key, feature in self.architecture.id_features().items()
        }
        gate = getattr(self.architecture, "gate", None)
        if isinstance(gate, GateKind):
            named |= {f"architecture.gate.{key}": feature for key, feature in gate.id_features().items()}
        return named

    def label_columns(self, tasks: TaskSet) -> tuple[LabelColumn, ...]:
        """What a training step reads of the log besides features: labels of the tasks, then where a row was shown.

        A pre-training reads none.
        """
        if self.pretraining is not None:
            return ()
        return (*tasks.label_columns, *(() if self.position is None else self.position.label_columns))

    def _balance_problems(self) -> Iterator[tuple[str, str]]:
        """Terms that read of gates what theirs have not; a model without gates has nothing to balance."""
        if not isinstance(self.architecture, MixtureConfig):
            return
        gate = self.architecture.gate
        for name, term in balance_terms(self.balance).items():
            missing = ", ".join(sorted(term.reads - details_of(gate)))
            if missing:
                yield (
                    f"balance.{name}.kind",
                    f"{term.kind} reads the {missing} of gates, and {gate.kind} has none; drop it, or set "
                    f"model.architecture.gate.kind to {_gates_with(term.reads)}",
                )

    def balance_features(self) -> dict[str, str | None]:
        """Features whose ids balance terms read, by the key below the section; None where one has to be named."""
        return {
            f"balance.{name}.{key}": feature
            for name, term in balance_terms(self.balance).items()
            for key, feature in term.id_features().items()
        }

    def unknown_shares(self, keys: Sequence[str], measured: Mapping[str, float]) -> list[float]:
        """Per sparse key, the share of its ids that a training step hides.

        Args:
            keys: of the layout, in its order.
            measured: by key, the share of ids in the validation split that training has not seen, where it is known.
        """
        if self.unknown_share != "auto":
            return [self.unknown_share] * len(keys)
        shares = (measured.get(key, DEFAULT_UNKNOWN_SHARE) for key in keys)
        return [min(max(share, DEFAULT_UNKNOWN_SHARE), MAX_UNKNOWN_SHARE) for share in shares]


def _gates_with(details: frozenset[Detail]) -> str:
    """The kinds of gates that have some details."""
    kinds = [kind() for kind in get_args(get_args(GateConfig)[0])]
    return " or ".join(gate.kind for gate in kinds if details <= details_of(gate))
