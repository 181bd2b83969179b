"""THOR: experts drawn at random in training, that learn to predict alike; served all together, or one of them.

Transformer with stochastic experts: Zuo et al., ICLR 2022, https://arxiv.org/abs/2110.04260, section 3.
"""

# B rows, D input width, H expert width, V experts of a level, Z logits

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.levels import Levels
from recmoe.architectures.seam import ArchitectureKind, Inputs, LevelFlow, Outputs, Parts, Targets
from recmoe.architectures.towers import TowerModel
from recmoe.axes import PartNames, WeightAxes
from recmoe.moe.experts import ExpertConfig, MlpExpertConfig
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer, MixtureConfig
from recmoe.tasks.funnel import TaskSet

CONSISTENCY = "consistency"
Serves = Literal["all", "one"]


class THORConfig(ArchitectureKind):
    """Experts drawn at random in training, that learn to predict alike; no gate has to be learned."""

    kind: Literal["thor"] = "thor"
    num_levels: PositiveInt = 1
    """Layers of experts, one on the other; each draws for itself."""
    num_experts: PositiveInt = 4
    """Experts of a level, which all tasks share."""
    expert_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of an expert."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an expert's activations dropped in training."""
    expert: ExpertConfig = MlpExpertConfig()
    """What an expert is."""
    consistency: NonNegativeFloat = 1.0
    """Factor of the loss by which the predictions of two draws must agree, α of the paper; that of the tasks has 1."""
    serves: Serves = "all"
    """What a row is served with: the mean of all experts, or the first one, at the cost of one."""

    def assemble(self, parts: Parts) -> nn.Module:
        """The levels, with a tower for every task on the last."""
        mixture = MixtureConfig(expert_hidden=self.expert_hidden, dropout=self.dropout, expert=self.expert)
        levels = StochasticLevels(
            in_features=parts.in_features,
            num_tasks=len(parts.tasks.tower_names),
            num_levels=self.num_levels,
            num_experts=self.num_experts,
            serves=self.serves,
            make_layer=mixture.layer,
        )
        return THOR(
            levels=levels,
            towers=parts.make_towers(levels.out_features),
            tasks=parts.tasks,
            consistency=self.consistency,
        )

    def keeping(self, counts: Mapping[str, int]) -> Self:
        """With fewer experts; see ``ArchitectureKind``."""
        return self.model_copy(update={"num_experts": counts["shared"]})

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves all experts, and each level reads the one below."""
        above = {"shared": {"shared"}}
        everyone = {task: {"shared"} for task in task_names}
        return [LevelFlow(everyone, {} if level == self.num_levels - 1 else above) for level in range(self.num_levels)]


class DrawnGate(nn.Module):
    """p_BV = 1 for the expert that a row draws in training, each with the same probability; see ``Gate``.

    Served rows draw nothing: they have 1 / V of every expert, or all of the first.

    Args:
        num_experts: V.
        serves: what a served row has.
    """

    sums_to_one = True

    def __init__(self, *, num_experts: int, serves: Serves) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.serves = serves

    @property
    def is_sparse(self) -> bool:
        """Whether a row has one expert; see ``Gate``."""
        return self.training or self.serves == "one"

    @property
    def num_used(self) -> int:
        """Experts with a weight per row; see ``Gate``."""
        return 1 if self.is_sparse else self.num_experts

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32; nothing of the row is read but that it is there."""
        num_rows, device = (len(x), x.device) if isinstance(x, Tensor) else (x.num_rows, x.own_CI.device)
        if not self.is_sparse:
            return torch.full((num_rows, self.num_experts), 1.0 / self.num_experts, device=device)
        drawn_B = torch.zeros(num_rows, dtype=torch.int64, device=device)
        if self.training:
            drawn_B.random_(self.num_experts)
        return nn.functional.one_hot(drawn_B, self.num_experts).float()

    def linear_form(self) -> None:
        """None: it is no product; see ``Gate``."""

    def weight_axes(self) -> WeightAxes:
        """It has no weights."""
        return {}


class StochasticLevels(nn.Module):
    """h^l = f_e(h^(l-1)), e drawn per row and level; for all tasks alike, with h^0 = x.

    Args:
        in_features: D.
        num_tasks: how many tasks read the last level.
        num_levels: layers of experts.
        num_experts: V.
        serves: what a served row has in place of the drawn expert.
        make_layer: builds experts.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_tasks: int,
        num_levels: int,
        num_experts: int,
        serves: Serves,
        make_layer: MakeLayer,
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.levels = Levels()
        width = in_features
        for level in range(num_levels):
            layer = make_layer(
                experts={f"shared.{expert}": 0 for expert in range(num_experts)},
                gates={"shared": 0},
                mask_GE=[[True] * num_experts],
                in_features=width,
                level=level,
                make_gate=lambda *, in_features, num_experts: DrawnGate(  # noqa: ARG005
                    num_experts=num_experts, serves=serves
                ),
            )
            self.levels.append(layer)
            width = layer.out_features
        self.out_features = width

    def part_names(self) -> PartNames:
        """Levels by their position."""
        return {"levels": self.levels.names()["levels"]}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """The same h_BH for every task, and what was drawn level by level."""
        h, uses = self.levels(x, groups)
        return h * self.num_tasks, uses


class THOR(nn.Module):
    """Levels of stochastic experts with a tower per task, computed twice while they train; see ``Model``::

        L = Σ_t ½ · (loss_t(z¹) + loss_t(z²)) + α/2 · L_consistency      z¹, z²: logits of two draws of all experts
        L_consistency = 1/B · Σ_b Σ_t ½ · (KL(p¹ ‖ p²) + KL(p² ‖ p¹))    p¹, p²: what they predict for row b

    That is half of the paper's loss, so that tasks weigh as with other architectures. What is computed before, tables
    and all, is computed once. The paper's predictions are probabilities; where a task's are not, its distance to a
    teacher, taken both ways, stands for the divergence, in the unit of its loss. A row counts whether or not it is in
    the task's space, as no label is needed.

    As in the authors' code, the two draws are independent, and may be alike. There all rows of a batch have the
    experts drawn once, on one device; here each row draws for itself, as the paper has it for each input.

    Served with one expert, this is a model of one; the paper serves with a draw per sentence or token, or all together.
    With a draw, a row would have another score every time.

    Args:
        levels: x_BD → one h_BH per tower.
        towers: h_BH → logits_BK.
        tasks: whose predictions are compared.
        consistency: α.
    """

    replaces: frozenset[str] = frozenset()

    def __init__(
        self, *, levels: StochasticLevels, towers: Sequence[nn.Module], tasks: TaskSet, consistency: float
    ) -> None:
        super().__init__()
        self.inner = TowerModel(architecture=levels, towers=towers, task_names=tasks.tower_names)
        self.loss_weights: Mapping[str, float] = {CONSISTENCY: consistency / 2} if consistency > 0 else {}
        self._tasks = tasks
        self._places = [tasks.names.index(name) for name in tasks.tower_names]

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows; in training of two draws, with what the first one was."""
        outputs: Outputs = self.inner(inputs)
        if not self.training:
            return outputs
        return outputs._replace(again_BZ=self.inner(inputs).logits_BZ)

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        self.inner.begin_at_zero()

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """How far the predictions of the two draws are from each other."""
        if not self.loss_weights:
            return {}
        assert outputs.again_BZ is not None, "losses are asked of a model that trains"
        apart_T = self._tasks.divergences(outputs.logits_BZ, outputs.again_BZ, targets.groups_B)
        if targets.units_T is not None:
            apart_T = apart_T / torch.stack([targets.units_T[place] for place in self._places])
        return {CONSISTENCY: apart_T.sum()}
