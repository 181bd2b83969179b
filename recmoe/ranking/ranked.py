"""Ranked: candidates of one request, scored and in order; what an answer of any kind is made of."""

# C candidates, K items, T tasks

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.client.explanation import Explanation
from recmoe.ranking.clock import Clock
from recmoe.ranking.look_ups import LookUps, StoreName
from recmoe.ranking.request import FeatureWarning, ModelInfo, RankedItem, RankResponse, ScoreInfo

Check = Callable[[], None]
"""Raises what ends an explanation before it is made."""


@dataclass(frozen=True)
class Ranked:
    """The candidates of a request with their predictions, and the order to show them in.

    Example: of three candidates, the last scores highest and the first has no finite score::

        score_C    [null, 0.1, 0.7]        order_K    [2, 1, 0]
    """

    request_id: str | None
    model: ModelInfo
    score: ScoreInfo
    task_names: Sequence[str]
    """The T tasks whose predictions are wanted."""
    predictions_CT: NDArray[np.float64]
    score_C: pa.Array
    """float64; null where the formula gave no finite number."""
    order_K: NDArray[np.int64]
    """Positions of the candidates: the best ``top_k``, or all, by falling score."""
    item_ids: Sequence[Any] | pa.Array
    """C ids as the request gave them, or positions."""
    item_keys: pa.Array
    """The same as values of one type."""
    warnings: Sequence[FeatureWarning]
    look_ups: Mapping[StoreName, LookUps]
    """What became of ids, by store."""
    clock: Clock
    explain: Callable[[Check], Sequence[Explanation]] | None = None
    """Makes the explanations of the items to show; None where none are asked for, or they are made."""
    explanations: Sequence[Explanation] | None = None
    """Of the items to show, in their order; None where none were asked for."""

    @property
    def num_candidates(self) -> int:
        return len(self.predictions_CT)

    @property
    def scores_C(self) -> NDArray[np.float64]:
        """The scores in the order of the request; NaN where the formula gave no finite number."""
        scores_C: NDArray[np.float64] = self.score_C.to_numpy(zero_copy_only=False)
        return scores_C

    def explained(self, check: Check = lambda: None) -> "Ranked":
        """The same with the explanations that are asked for.

        Args:
            check: is called again and again while they are made.
        """
        if self.explain is None:
            return self
        explanations = self.explain(check)
        self.clock.stage("explain")
        return replace(self, explain=None, explanations=explanations)

    def items(self) -> list[RankedItem]:
        """The items to show, in their order."""
        if isinstance(self.item_ids, pa.Array):
            ids = self.item_ids.take(pa.array(self.order_K)).to_pylist()
        else:
            ids = [self.item_ids[place] for place in self.order_K.tolist()]
        return [
            RankedItem(item_id, score, dict(zip(self.task_names, row, strict=True)), explanation)
            for item_id, score, row, explanation in zip(
                ids,
                self.score_C.take(pa.array(self.order_K)).to_pylist(),
                self.predictions_CT[self.order_K].tolist(),
                [None] * len(ids) if self.explanations is None else self.explanations,
                strict=True,
            )
        ]

    def response(self, *, with_items: bool = True) -> RankResponse:
        """The answer as JSON has it; without items where they are written otherwise."""
        items = self.items() if with_items else []
        self.clock.stage("score")
        return RankResponse(
            request_id=self.request_id,
            model=self.model,
            score=self.score,
            items=items,
            warnings=list(self.warnings),
            timing_ms=self.clock.timing_ms(),
        )


def order_of(score_C: pa.Array, item_keys: pa.Array, *, top_k: int | None) -> NDArray[np.int64]:
    """Positions by falling score, ties by rising id; what has no score stands last."""
    keys = pa.table({"score": score_C, "item": item_keys})
    order = pc.sort_indices(keys, sort_keys=[("score", "descending"), ("item", "ascending")])
    order_K: NDArray[np.int64] = order.to_numpy()[:top_k].astype(np.int64)
    return order_K
