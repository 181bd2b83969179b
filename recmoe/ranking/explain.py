"""Explainer: rows as a model reads them → what made its predictions, in requests and offline alike."""

# C candidates, K of them that are returned, F features, V experts that a gate sees

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recmoe.client.explanation import Explanation, FeatureAttribution, GateWeights, TaskExplanation
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.model import MultiTaskRanker
from recmoe.model.attributions import Attributions, SidedRows, attributions
from recmoe.moe.balance.statistics import visible
from recmoe.moe.gate_use import GateUse
from recmoe.products import autocast
from recmoe.ranking.columns import RequestDecoder
from recmoe.ranking.items.candidates import StoredItems
from recmoe.ranking.precision import Precision
from recmoe.ranking.ranked import Check
from recmoe.ranking.request import ColumnRequest, RankOptions
from recmoe.ranking.stages import EncodedRequest


class Explainer:
    """Explains the predictions of one model. Holds no state of requests: threads may share it.

    Args:
        model: as it serves.
        encoder: of the model.
        decoder: of requests to it.
        precision: of matrix products.
    """

    def __init__(
        self, model: MultiTaskRanker, encoder: FeatureEncoder, decoder: RequestDecoder, precision: Precision
    ) -> None:
        self._model, self._encoder, self._precision = model, encoder, precision
        empty = RankOptions()
        of_candidate = decoder.own_rows(ColumnRequest(empty, {}, 1), decoder.own)
        self._missing = SidedRows(
            decoder.shared.encode(decoder.shared_rows(empty)).batch,
            decoder.own.encode(of_candidate).batch,
            torch.zeros(1, dtype=torch.int64),
        )

    def of_request(
        self,
        encoded: EncodedRequest,
        order_K: NDArray[np.int64],
        task_names: Sequence[str],
        items: StoredItems | None,
        check: Check,
    ) -> list[Explanation]:
        """Explanations of K candidates of a request, by their places in it; see ``explain``.

        Args:
            items: where columns of candidates lie that the request leaves out.
        """
        known = None if items is None else items.batch
        own = encoded.own.batch(order_K, self._model.input_layer.parts["own"].layout, known)
        rows = SidedRows(encoded.shared.batch, own, torch.zeros(len(order_K), dtype=torch.int64))
        top_features = encoded.columns.options.top_features
        return self.explain(rows, task_names=task_names, top_features=top_features, check=check)

    def of_rows(self, rows: pa.Table) -> list[Explanation]:
        """Explanations of flat rows, as of requests with one candidate each, by all features.

        Raises:
            SchemaError, DataError: a column is missing or does not fit.
        """
        sides = (SHARED_SIDES, OWN_SIDES)
        shared, own = (self._encoder.encode(rows, sides=of_part, with_labels=False) for of_part in sides)
        sided = SidedRows(shared, own, torch.arange(rows.num_rows))
        num_features = len(self._encoder.schema.features)
        return self.explain(sided, task_names=self._model.tasks.names, top_features=num_features)

    def explain(
        self, rows: SidedRows, *, task_names: Sequence[str], top_features: int, check: Check = lambda: None
    ) -> list[Explanation]:
        """Explanations of C candidates.

        Args:
            task_names: whose predictions are explained.
            top_features: that are told of each task.
            check: is called again and again; what it raises ends the computation.
        """
        with torch.inference_mode(), autocast(self._precision, torch.device("cpu")):
            check()
            uses = self._model.forward_sided(*rows).all_uses()
            found = attributions(self._model, rows, self._missing, check=check)
        gates = _gates(uses, num_rows=rows.own.num_rows)
        return [
            Explanation(self._tasks(found, row, task_names, top_features), of_row) for row, of_row in enumerate(gates)
        ]

    def _tasks(
        self, found: Attributions, row: int, task_names: Sequence[str], top_features: int
    ) -> dict[str, TaskExplanation]:
        """What moved the predictions of one row."""
        tasks = self._model.tasks
        explained = {}
        for name in task_names:
            task = tasks.names.index(name)
            moves_F = found.moves_CFT[row, :, task]
            order_F = moves_F.abs().argsort(descending=True, stable=True)
            explained[name] = TaskExplanation(
                unit="log-odds" if tasks.kinds[name] == "binary" else "prediction",
                predicted=float(found.predicted_CT[row, task]),
                base=float(found.base_CT[row, task]),
                features=[
                    FeatureAttribution(found.features[place], float(moves_F[place]))
                    for place in order_F[:top_features].tolist()
                ],
                others=float(moves_F[order_F[top_features:]].sum()),
            )
        return explained


def _gates(uses: Sequence[GateUse], *, num_rows: int) -> list[list[GateWeights]]:
    """Of each row, the weights of every gate over the experts that it sees."""
    rows: list[list[GateWeights]] = [[] for _ in range(num_rows)]
    for use in uses:
        of_gates = zip(use.gates, use.weights_BGE.unbind(dim=1), visible(use), strict=True)
        for gate, weights_CE, is_visible_E in of_gates:
            experts = [name for name, is_seen in zip(use.experts, is_visible_E.tolist(), strict=True) if is_seen]
            for of_row, weights_V in zip(rows, weights_CE[:, is_visible_E].tolist(), strict=True):
                of_row.append(GateWeights(use.level, gate, dict(zip(experts, weights_V, strict=True))))
    return rows
