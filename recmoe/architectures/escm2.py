"""ESCM²: an entire-space model whose conversion task is made unbiased, by inverse propensity or doubly robust.

Entire space counterfactual multi-task model: Wang et al., SIGIR 2022, https://arxiv.org/abs/2204.05125,
equations 9-14; ESMM, which it builds on: Ma et al., SIGIR 2018, https://arxiv.org/abs/1804.07931.
"""

# B rows, T tasks, T' towers, Z logits, K = 1 logit of a binary task

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.seam import ArchitectureKind, Inputs, Outputs, Parts, Targets, no_such_tower
from recmoe.architectures.shared_bottom import SharedBottom
from recmoe.architectures.towers import TowerModel
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import Tower

Method = Literal["ips", "dr"]
IMPUTED = "imputed"


class ESCM2Config(ArchitectureKind):
    """One network for all tasks; the loss of the conversion is weighted by the inverse of the click's probability."""

    kind: Literal["escm2"] = "escm2"
    click: str | None = None
    """Task whose probability is the propensity; by default the first one."""
    conversion: str | None = None
    """Task that lives where the click is 1; by default the second one. Its own loss is replaced."""
    method: Method = "dr"
    """Inverse propensity scoring (ips), or doubly robust, with a tower that imputes the error of rows without a click
    (dr)."""
    counterfactual: NonNegativeFloat = 0.1
    """Factor of the counterfactual loss, λ_c of the paper."""
    min_propensity: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Propensities below this one are taken for it, so that no row weighs more than its inverse."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of the network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""

    def pair(self, tasks: TaskSet) -> tuple[str, str]:
        """Click and conversion."""
        names = (*tasks.tower_names, "", "")
        return self.click or names[0], self.conversion or names[1]

    def assemble(self, parts: Parts) -> nn.Module:
        """The network with its towers, and the one that imputes."""
        names = parts.tasks.tower_names
        bottom = SharedBottom(
            in_features=parts.in_features, num_tasks=len(names), hidden=self.hidden, dropout=self.dropout
        )
        width = bottom.out_features
        click, conversion = self.pair(parts.tasks)
        return ESCM2(
            bottom=bottom,
            towers=parts.make_towers(width),
            imputation=parts.make_tower(width, conversion) if self.method == "dr" else None,
            tasks=parts.tasks,
            click=click,
            conversion=conversion,
            counterfactual=self.counterfactual,
            min_propensity=self.min_propensity,
        )

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Tasks that are not there, no binary ones, or not a click and what follows it."""
        yield from super().task_problems(tasks, groups)
        for key, name in zip(("click", "conversion"), self.pair(tasks), strict=True):
            if name not in tasks.tower_names:
                yield key, no_such_tower(name or "none is named", tasks)
            elif tasks.kinds[name] != "binary":
                yield key, f"{name} is no probability; name a binary task"


class ESCM2(nn.Module):
    """A shared bottom with a loss of its own for the conversion; see ``Model``.

    With o the click, p its probability, e_b the cross-entropy of the conversion in row b and ê_b what is imputed::

        L_IPS = 1/B · Σ_b o_b · e_b / p_b
        L_DR  = 1/B · Σ_b [ ê_b + o_b · (e_b − ê_b) / p_b ],    L_imputed = 1/B · Σ_b o_b · (e_b − ê_b)² / p_b

    No gradient goes through p in these losses: the propensity is learned from clicks alone. A row whose conversion is
    not known counts as one without a click.

    Args:
        bottom: x_BD → h_BH for all towers.
        towers: h_BH → logits_BK.
        imputation: h_BH → ê_B before a softplus; None for IPS.
        tasks: which of them are click and conversion.
        counterfactual: factor of L_IPS or L_DR, and of L_imputed.
        min_propensity: smallest p that is divided by.
    """

    def __init__(
        self,
        *,
        bottom: SharedBottom,
        towers: Sequence[nn.Module],
        imputation: nn.Module | None,
        tasks: TaskSet,
        click: str,
        conversion: str,
        counterfactual: float,
        min_propensity: float,
    ) -> None:
        super().__init__()
        self.inner = TowerModel(architecture=bottom, towers=towers, task_names=tasks.tower_names)
        self.imputation = imputation
        self.replaces = frozenset({conversion})
        self.own = f"{conversion}_{'ips' if imputation is None else 'dr'}"
        self.imputed = f"{conversion}_{IMPUTED}"
        names = (self.own,) if imputation is None else (self.own, self.imputed)
        self.loss_weights: Mapping[str, float] = dict.fromkeys(names, counterfactual)
        self.min_propensity = min_propensity
        self._place = tasks.tower_names.index(conversion)
        self._columns = tasks.columns(click)[0], tasks.columns(conversion)[0]
        self._tasks = tasks.names.index(click), tasks.names.index(conversion)

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows, and the imputed errors."""
        if self.imputation is None:
            outputs: Outputs = self.inner(inputs)
            return outputs
        h, routing = self.inner.architecture(inputs.x, inputs.groups)
        imputed_B = functional.softplus(self.imputation(h[self._place])[:, 0].float())
        return Outputs(self.inner.logits_of(h), routing, {IMPUTED: imputed_B})

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        self.inner.begin_at_zero()
        if self.imputation is not None:
            assert isinstance(self.imputation, Tower)
            self.imputation.begin_at_zero()

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """L_IPS, or L_DR and L_imputed."""
        click, conversion = self._tasks
        logits_BZ = outputs.logits_BZ
        p_B = torch.sigmoid(logits_BZ[:, self._columns[0]]).detach().clamp(min=self.min_propensity)
        # The conversion counts where the row was clicked and its label is known: o_b.
        clicked_B = targets.weights_BT[:, conversion]
        error_B = functional.binary_cross_entropy_with_logits(
            logits_BZ[:, self._columns[1]], targets.labels_BT[:, conversion], reduction="none"
        )
        num_rows = len(error_B)
        if self.imputation is None:
            return {self.own: (clicked_B * error_B / p_B).sum() / num_rows}
        imputed_B = outputs.extra[IMPUTED]
        # A row may be imputed where it is known whether it was clicked.
        known_B = targets.weights_BT[:, click]
        doubly_B = known_B * imputed_B + clicked_B * (error_B - imputed_B) / p_B
        squares_B = clicked_B * (error_B - imputed_B).square() / p_B
        return {self.own: doubly_B.sum() / num_rows, self.imputed: squares_B.sum() / num_rows}
