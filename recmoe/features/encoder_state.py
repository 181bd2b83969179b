"""EncoderState: what fitting learns beside the schema, how it is written, and how it is read from anybody's files."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from recmoe.errors import DataError
from recmoe.features.encoder_check import check_dynamic, check_fits
from recmoe.features.encodings.dynamic import DynamicIds
from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.encodings.vocabulary import Vocabulary
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema
from recmoe.features.statistics import NumericStatistics
from recmoe.flat_table import FlatTable
from recmoe.json_document import checked, read_object

FORMAT = 1
_DOCUMENT = "encoder.json"
_COLUMNS = "columns.arrow"
_IDS_FILE = re.compile(r"(vocabulary|dynamic)_\d+\.arrow")
ENCODER_FILE = re.compile(rf"{re.escape(_DOCUMENT)}|{re.escape(_COLUMNS)}|{_IDS_FILE.pattern}")
"""Names of the files of an encoder."""
_MARK = b"ARROW1"
"""At both ends of an Arrow file."""
_NUM_MARK_BYTES = 8
"""With what fills it up, before the messages."""
_SCHEMA = TypeAdapter(FeatureSchema)


@dataclass(frozen=True)
class EncoderState:
    """What the training data taught."""

    inputs: Mapping[str, Any]
    """The schema as JSON, as it was fitted: a field that a later version adds does not change the fingerprint."""
    columns: pa.Schema
    """Raw columns of features, group and item, with their types."""
    vocabularies: Mapping[str, Vocabulary]
    """By table."""
    numbers: Mapping[str, NumericStatistics]
    """By numeric feature."""
    dynamic: Mapping[str, DynamicIds] = field(default_factory=dict)
    """By table, where ids come and go."""

    def learned(self, table: str) -> RowLookup | None:
        """The ids of a table that were learned; None where none were."""
        return self.vocabularies.get(table) or self.dynamic.get(table)


def fingerprint(labels: Sequence[LabelColumn], state: EncoderState) -> str:
    """sha256 of everything that decides how a row is encoded."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "schema": state.inputs,
        "labels": [label.to_json() for label in labels],
        "columns": {field.name: str(field.type) for field in state.columns},
        "vocabularies": {table: vocabulary.digest for table, vocabulary in state.vocabularies.items()},
        "numbers": {name: dataclasses.asdict(numbers) for name, numbers in state.numbers.items()},
    }
    if state.dynamic:
        document["dynamic"] = {table: ids.digest for table, ids in state.dynamic.items()}
    # The order of features is the order of the batch's columns, so keys stay unsorted.
    return hashlib.sha256(json.dumps(document, ensure_ascii=False).encode()).hexdigest()


def save_encoder(directory: Path, *, labels: Sequence[LabelColumn], state: EncoderState, fingerprint: str) -> None:
    """Write ``encoder.json``, the columns' types and one Arrow file per vocabulary, all or nothing."""
    if directory.exists() and not (
        directory.is_dir() and all(ENCODER_FILE.fullmatch(path.name) for path in directory.iterdir())
    ):
        raise DataError(f"{directory}: holds other files than an encoder's; give a new folder, or empty it")
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write_files(unfinished, labels, state, fingerprint)
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(unfinished, directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _is_ours(path: Path) -> bool:
    return ENCODER_FILE.fullmatch(path.name) is not None


def _write_files(directory: Path, labels: Sequence[LabelColumn], state: EncoderState, fingerprint: str) -> None:
    # Tables are named by users; files are numbered, for a name may hold a slash.
    files = {table: f"vocabulary_{index}.arrow" for index, table in enumerate(state.vocabularies)}
    for table, file in files.items():
        _write_columns(directory / file, pa.table({"id": state.vocabularies[table].ids}))
    dynamic = {table: f"dynamic_{index}.arrow" for index, table in enumerate(state.dynamic)}
    for table, file in dynamic.items():
        _write_columns(directory / file, state.dynamic[table].to_table())
    (directory / _COLUMNS).write_bytes(state.columns.serialize().to_pybytes())
    document = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "schema": state.inputs,
        "labels": [label.to_json() for label in labels],
        "vocabularies": files,
        "numbers": {name: dataclasses.asdict(numbers) for name, numbers in state.numbers.items()},
        "dynamic": {table: {"file": file, **state.dynamic[table].to_json()} for table, file in dynamic.items()},
    }
    (directory / _DOCUMENT).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


def _write_columns(path: Path, columns: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
        writer.write_table(columns)


def load_encoder(directory: Path) -> tuple[FeatureSchema, tuple[LabelColumn, ...], EncoderState]:
    """Read what ``save_encoder`` wrote; DataError if a file is missing, damaged or of another version."""
    try:
        document = _read_document(directory)
        version = document["format"]
        if version != FORMAT:
            raise DataError(
                f"{directory}: the encoder is of format {version}, this version of recmoe reads {FORMAT}; "
                "fit it again, or use the version that wrote it"
            )
        schema, labels, state = _parse(directory, document)
        stored = document["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(f"{directory}: the encoder cannot be read: {error}; fit it again, or copy it again") from error
    if fingerprint(labels, state) != stored:
        raise DataError(
            f"{directory}: the encoder's files do not match its fingerprint; fit it again, or copy it again"
        )
    return schema, labels, state


def _read_document(directory: Path) -> dict[str, Any]:
    try:
        return read_object((directory / _DOCUMENT).read_bytes())
    except ValueError as error:
        raise ValueError(f"{_DOCUMENT}: {error}") from error


def _parse(directory: Path, document: dict[str, Any]) -> tuple[FeatureSchema, tuple[LabelColumn, ...], EncoderState]:
    numbers = {
        name: NumericStatistics(mean=fields["mean"], std=fields["std"], edges=tuple(fields["edges"]))
        for name, fields in document["numbers"].items()
    }
    vocabularies = {table: _read_vocabulary(directory, file) for table, file in document["vocabularies"].items()}
    dynamic = {table: _read_dynamic(directory, values) for table, values in document.get("dynamic", {}).items()}
    columns = _read_types(directory)
    schema = checked(_SCHEMA, document["schema"])
    labels = tuple(LabelColumn.from_json(label) for label in document["labels"])
    check_fits(schema, columns=columns, learned=vocabularies.keys() | dynamic.keys(), numbers=numbers)
    state = EncoderState(
        inputs=document["schema"], columns=columns, vocabularies=vocabularies, numbers=numbers, dynamic=dynamic
    )
    return schema, labels, state


def _read_types(directory: Path) -> pa.Schema:
    """The raw columns' types."""
    try:
        return pa.ipc.read_schema(pa.py_buffer((directory / _COLUMNS).read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{_COLUMNS}: {error}") from error


def _read_columns(directory: Path, file: str) -> pa.Table:
    """A table of the encoder; ValueError for a file that is none of its own, or whose values do not fit their type."""
    if not _IDS_FILE.fullmatch(file):
        raise ValueError(f"{_DOCUMENT} names the file {file!r}, which no encoder has")
    try:
        with pa.OSFile(str(directory / file)) as source:
            content = source.read_buffer()
        if not bytes(content[:6]) == _MARK == bytes(content[-6:]):
            raise ValueError("it is cut, or no Arrow file")
        # It is read as the stream inside of it: what its end says of other places in it does not count.
        messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(content.slice(_NUM_MARK_BYTES)))
        schema = pa.ipc.read_schema(messages.read_next_message())
        batches = [pa.ipc.read_record_batch(_plain(message), schema) for message in messages]
        table = pa.Table.from_batches(batches, schema)
        # Offsets that lead out of their buffer are found by this alone.
        table.validate(full=True)
    except (OSError, ValueError, StopIteration, pa.ArrowException) as error:
        raise ValueError(f"{file}: {error or 'it is cut'}") from error
    return table


def _plain(message: pa.Message) -> pa.Message:
    """A batch as it is written here; ValueError for others: a few compressed bytes stand for gigabytes."""
    head = FlatTable.root(memoryview(message.metadata)).table(2)
    if message.type != "record batch" or head is None or head.has(3):
        raise ValueError("it holds compressed values or dictionaries, which no encoder has")
    return message


def _read_vocabulary(directory: Path, file: str) -> Vocabulary:
    ids = _read_columns(directory, file)["id"]
    # Views may stand for one text many times.
    if ids.null_count or not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise ValueError(f"{file} holds {ids.type} and {ids.null_count} nulls; a vocabulary is texts")
    return Vocabulary(ids.chunk(0) if ids.num_chunks == 1 else ids.combine_chunks())


def _read_dynamic(directory: Path, values: Mapping[str, Any]) -> DynamicIds:
    table = _read_columns(directory, values["file"])
    check_dynamic(table, values)
    return DynamicIds.from_table(table, values)
