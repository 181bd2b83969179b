"""Arrow's streams, for clients that have pyarrow; nothing else of the client needs it."""

import io
from typing import TYPE_CHECKING, Any

from recmoe.errors import ServingError

if TYPE_CHECKING:
    import pyarrow as pa

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
DOCUMENT = b"recmoe"
"""Key of the schema's metadata: all of a request or an answer that is no column."""


def stream_of(candidates: "pa.Table | pa.RecordBatch", document: bytes) -> bytes:
    """The body of a request; a column that is a dictionary becomes plain values.

    Args:
        document: all of it but its candidates, as JSON.

    Raises:
        ServingError: pyarrow is not installed.
    """
    pa = _pyarrow()
    table = candidates if isinstance(candidates, pa.Table) else pa.Table.from_batches([candidates])
    plain = pa.schema(
        [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in table.schema
        ]
    )
    table = table.cast(plain).combine_chunks().replace_schema_metadata({DOCUMENT: document})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def table_of(content: bytes) -> "pa.Table":
    """The items of an answer; ValueError where it is no stream of them."""
    pa = _pyarrow()
    with pa.ipc.open_stream(content) as reader:
        table = reader.read_all()
    if DOCUMENT not in (table.schema.metadata or {}):
        raise ValueError("its schema says nothing of a ranking")
    return table


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ServingError("rank_table needs pyarrow; install it, or use rank") from error
    return pyarrow
