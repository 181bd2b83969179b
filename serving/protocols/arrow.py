"""Arrow: candidates as the batches of an Arrow IPC stream, and ordered items as one.

The request's columns are those of the candidates. All else of it, user, context and what is wanted, is a JSON document
in the schema's metadata under ``recmoe``; so is all of the answer but its items.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from recmoe.ranking.prediction_columns import explanation_column, item_column, score_column
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import ColumnRequest, RankOptions
from serving.body import check_values
from serving.protocols.arrow_stream import columns_of, read_stream
from serving.reply import Reply

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
DOCUMENT = b"recmoe"
"""Key of the schema's metadata."""


class Arrow:
    """Reads and writes Arrow.

    Args:
        max_values: values of a request that are read.
    """

    name = "arrow"

    def __init__(self, *, max_values: int) -> None:
        self._max_values = max_values

    def read(self, ranker: Ranker, body: bytes) -> ColumnRequest:
        """A request; RequestError with the column and row at fault."""
        table = read_stream(body, max_candidates=ranker.config.max_candidates, max_values=self._max_values)
        document = (table.schema.metadata or {}).get(DOCUMENT, b"{}")
        check_values(document, self._max_values)
        return ColumnRequest(RankOptions.parse(document), columns_of(table), table.num_rows)

    def encode(self, ranked: Ranked) -> Reply:
        """The ordered items: ``item_id``, ``score``, a column for each task, and ``explanation`` where asked for."""
        order_K = pa.array(ranked.order_K)
        columns = {
            item_column(ranked.task_names): ranked.item_keys.take(order_K),
            score_column(ranked.task_names): ranked.score_C.take(order_K),
        }
        for task, predictions_K in zip(ranked.task_names, ranked.predictions_CT[ranked.order_K].T, strict=True):
            columns[task] = pa.array(predictions_K)
        if ranked.explanations is not None:
            explained = map(asdict, ranked.explanations)
            columns[explanation_column(ranked.task_names)] = pa.array(explained, explanation_type(ranked.task_names))
        document = ranked.response(with_items=False).model_dump_json(exclude={"items"})
        table = pa.table(columns, metadata={DOCUMENT: document.encode()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Reply(sink.getvalue().to_pybytes(), MEDIA_TYPE)

    def described(self) -> dict[str, Any]:
        """The request's schema for the OpenAPI page, by media type."""
        about = (
            "An Arrow IPC stream, uncompressed and without dictionaries. Its columns are those of the candidates; the "
            "schema's metadata holds the rest of the request as JSON under the key recmoe."
        )
        return {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary", "description": about}}}


def explanation_type(task_names: Sequence[str]) -> pa.DataType:
    """The type of an explanation: what JSON has, with a map where names are those of experts."""
    feature = pa.struct({"feature": pa.string(), "value": pa.float64()})
    numbers = dict.fromkeys(("predicted", "base", "others"), pa.float64())
    task = pa.struct({"unit": pa.string(), **numbers, "features": pa.list_(feature)})
    gate = pa.struct({"level": pa.int64(), "gate": pa.string(), "weights": pa.map_(pa.string(), pa.float64())})
    return pa.struct({"tasks": pa.struct(dict.fromkeys(task_names, task)), "gates": pa.list_(gate)})


def names_arrow(header: str) -> bool:
    """Whether a header of media types (Content-Type, Accept) names Arrow's."""
    return any(part.partition(";")[0].strip().lower() == MEDIA_TYPE for part in header.split(","))
