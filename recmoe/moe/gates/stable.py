"""Stable gate: first it learns which expert a row needs; then ids alone decide, by a router that stays as it is.

StableMoE: Dai et al., ACL 2022, https://arxiv.org/abs/2204.08396, section 3, read by its abstract and the authors'
code, https://github.com/Hunter-DDM/stablemoe, moe_layer.py.
"""

# B rows, D input width, V visible experts, F features, N buckets of all features, K width of a bucket's vector

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.axes import EXPERTS, RowLabel, WeightAxes
from recmoe.moe.gates.gate import Detail, Distilled, GateKind, Weighed
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, id_group


class StableGateConfig(GateKind):
    """One expert per row and gate: at first the best one, later the one that a frozen router knows for the row's ids.

    Training logs the loss ``gates.distilled``.
    """

    details: ClassVar[frozenset[Detail]] = frozenset({"logits", "second router"})
    untaught: ClassVar[frozenset[str]] = frozenset({"table_NK", "centroids_VK"})
    kind: Literal["stable"] = "stable"
    feature: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Feature of kind id, or several, such as ``[item, user]``: rows of the same ids get the same expert."""
    stage_1_steps: PositiveInt = 1000
    """Training steps in which the gate learns what to choose; from then on every id keeps its expert. The paper takes a
    tenth of a training."""
    num_buckets: PositiveInt = 1024
    """Vectors of the router for each feature; ids above that share one."""
    width: PositiveInt = 16
    """Floats of such a vector."""

    def id_features(self) -> Mapping[str, str | None]:
        """The features, of which a config has to name one."""
        if self.feature is None or isinstance(self.feature, str):
            return {"feature": self.feature}
        return {f"feature.{place}": name for place, name in enumerate(self.feature)}

    def build(self, *, in_features: int, num_experts: int) -> "StableGate":
        """The gate over ``num_experts`` visible experts."""
        return StableGate(
            in_features=in_features,
            num_experts=num_experts,
            features=[name for name in self.id_features().values() if name is not None],
            stage_1_steps=self.stage_1_steps,
            num_buckets=self.num_buckets,
            width=self.width,
        )


class StableGate(nn.Module):
    """p_BV = σ(s_a) for one expert a of a row, 0 for the others::

        s_v = x · w_v                                 affinities
        r_v = (Σ_f e_f[row of the id of f mod num_buckets]) · c_v       the router: vectors e and centroids c

        stage 1   a = argmax_v s_v,   r learns to choose a: its cross-entropy is ``gates.distilled``
        stage 2   a = argmax_v r_v    with e and c as they were when stage 1 ended

    In stage 2 nothing moves the choice of a row; x, w and the experts train on, so that weights of rows still change.
    What is frozen is a copy in the gate's state: no optimizer knows it, whatever it does to weights without a gradient.
    What was learned stays next to it, so that weights have one form in both stages; nothing reads it any more.

    Steps of training are counted by the gate, in its state: a run that resumes goes on where it was, and one that
    starts from a model in stage 2 keeps the expert of every id that both know. Evaluation and serving choose as the
    stage does that training has reached, so that a model which saw no step of stage 2 is served by s; the authors' code
    evaluates by r in both stages. Ids that are hidden while training, unknown or missing are row 0.

    The router reads ids, not x: what a gate reads changes as long as the tables below it learn, so that a router of x
    would be frozen and its choice would not. A vocabulary numbers its ids by frequency; the most frequent ones do not
    share a vector with each other. Left out: the copy of x that the authors add to what an expert gives, with weight
    1 - σ(s), for experts here have another width; and a capacity of experts. For the balance loss see
    ``model.balance``, kind stable.

    Args:
        in_features: D.
        num_experts: V.
        features: whose ids the router reads; without one all rows are alike to it.
        stage_1_steps: training steps of stage 1.
        num_buckets: N / F.
        width: K.
    """

    sums_to_one = False
    is_sparse = True
    num_used = 1

    frozen_NK: Tensor
    """e of stage 2; while that has not begun, that of the last step."""
    frozen_VK: Tensor
    """c, likewise."""
    num_steps: Tensor
    """Training steps so far."""

    def __init__(
        self,
        *,
        in_features: int,
        num_experts: int,
        features: Sequence[str],
        stage_1_steps: int,
        num_buckets: int,
        width: int,
    ) -> None:
        super().__init__()
        self.features = tuple(features)
        self.stage_1_steps = stage_1_steps
        self.num_buckets = num_buckets
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        self.table_NK = nn.Parameter(torch.randn(len(self.features) * num_buckets, width))
        self.centroids_VK = new_gate_weight(in_features=width, num_experts=num_experts)
        self.register_buffer("frozen_NK", self.table_NK.detach().clone())
        self.register_buffer("frozen_VK", self.centroids_VK.detach().clone())
        self.register_buffer("num_steps", torch.zeros(()))

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:
        """p_BV in float32: one of a row is between zero and one, the others are zero."""
        return self.weigh(x, groups).weights_BV

    def weigh(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Weighed:
        """The same weights; a training batch counts as a step. See ``TellsMore``.

        In stage 2 the logits of experts that a row was not given are -inf: nothing that is done to them changes it.
        """
        self._take_step()
        # The device alone knows the stage: a GPU would have to be waited for.
        is_stage_2 = self.num_steps > self.stage_1_steps
        logits_BV = gate_logits(x, self.weight_VD)
        bucket_BF = self._buckets(x, groups)
        best_B1 = logits_BV.argmax(dim=1, keepdim=True)
        frozen_B1 = _routed(bucket_BF, self.frozen_NK, self.frozen_VK).argmax(dim=1, keepdim=True)
        chosen_B1 = torch.where(is_stage_2, frozen_B1, best_B1)
        weight_B1 = torch.sigmoid(logits_BV.gather(1, chosen_B1))
        p_BV = torch.zeros_like(logits_BV).scatter(1, chosen_B1, weight_B1)
        is_chosen_BV = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(1, chosen_B1, True)
        open_BV = logits_BV.masked_fill(is_stage_2 & ~is_chosen_BV, -torch.inf)
        if not self.training:
            return Weighed(p_BV, open_BV)
        return Weighed(p_BV, open_BV, distilled=Distilled(self.router_logits(bucket_BF), best_B1[:, 0], ~is_stage_2))

    def router_logits(self, bucket_BF: Tensor) -> Tensor:
        """r_BV, as it is learned; see ``Distils``."""
        return _routed(bucket_BF, self.table_NK, self.centroids_VK)

    def linear_form(self) -> None:
        """It reads ids besides; see ``Gate``."""

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees, and ids; see ``Gate``."""
        buckets = [RowLabel(name, row) for name in self.features for row in range(self.num_buckets)]
        of_table, of_centroids = (tuple(buckets) or None, None), (EXPERTS, None)
        return {
            "weight_VD": (EXPERTS, None),
            **{"table_NK": of_table, "frozen_NK": of_table},
            **{"centroids_VK": of_centroids, "frozen_VK": of_centroids},
            "num_steps": (),
        }

    @torch.no_grad()
    def _take_step(self) -> None:
        """Count a training batch; up to the first of stage 2, the copy is what has been learned so far."""
        if not self.training:
            return
        self.num_steps += 1
        is_open = self.num_steps <= self.stage_1_steps + 1
        self.frozen_NK.copy_(torch.where(is_open, self.table_NK, self.frozen_NK))
        self.frozen_VK.copy_(torch.where(is_open, self.centroids_VK, self.frozen_VK))

    def _buckets(self, x: Tensor | SidedInput, groups: Groups) -> Tensor:
        """int64 [B, F], places in the table."""
        places = []
        for first, name in enumerate(self.features):
            row_B = groups[id_group(name)]
            assert isinstance(row_B, Tensor)
            places.append(first * self.num_buckets + row_B.remainder(self.num_buckets))
        if places:
            return torch.stack(places, dim=1)
        rows_B = x[:, 0] if isinstance(x, Tensor) else x.request_C
        return torch.zeros_like(rows_B, dtype=torch.int64).unsqueeze(1)[:, :0]


def _routed(bucket_BF: Tensor, table_NK: Tensor, centroids_VK: Tensor) -> Tensor:
    """r_BV in float32."""
    return gate_logits(functional.embedding(bucket_BF, table_NK).sum(dim=1), centroids_VK)
