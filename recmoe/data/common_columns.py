"""common_columns: the columns that all files of a stream have, in types that hold the values of all."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from recmoe.data.column_types import common_type, is_text, readable_type
from recmoe.data.data_file import DataFile
from recmoe.errors import SchemaError


def common_columns(files: Sequence[DataFile]) -> tuple[pa.Schema, dict[str, str]]:
    """Columns in the order of the first file, and why each other one cannot be read, by name."""
    fields: list[pa.Field] = []
    problems: dict[str, str] = {}
    for name in dict.fromkeys(name for file in files for name in file.schema.names):
        try:
            fields.append(pa.field(name, readable_type(_type(name, files))))
        except SchemaError as error:
            problems[name] = str(error)
    return pa.schema(fields), problems


def text_elsewhere(files: Sequence[DataFile]) -> list[Collection[str]]:
    """Of each file, the columns that CSV makes numbers or times of and that are text in another file."""
    texts = {
        field.name for file in files for field in file.schema if is_text(field.type) and field.name not in file.vague
    }
    return [
        {field.name for field in file.schema if field.name in texts and not _is_textual(field.type)}
        - set(file.constants)
        if file.is_csv
        else ()
        for file in files
    ]


def _type(name: str, files: Sequence[DataFile]) -> pa.DataType:
    """SchemaError if a file lacks the column, or has it twice or in a type that fits no other's."""
    found = [file.select([name]).field(0).type for file in files]
    is_clear = [name not in file.vague for file in files]
    has_large_integers = _mixes_numbers(found) and any(file.has_large_integers(name) for file in files)
    # The file that gave a column its type: with nulls only, the first one says nothing.
    type_, owner = pa.null(), files[0]
    for file, kind in ((file, kind) for file, kind, is_said in zip(files, found, is_clear, strict=True) if is_said):
        common = common_type(type_, kind, has_large_integers=has_large_integers)
        if common is None:
            raise SchemaError(
                f"{file.path}: column {name!r} is {kind}, expected {type_} as in {owner.path}; "
                "write the files with one type"
            )
        if common != type_:
            type_, owner = common, file
    return pa.string() if pa.types.is_null(type_) and not all(is_clear) else type_


def _mixes_numbers(types: Sequence[pa.DataType]) -> bool:
    """Whether there are both 64-bit integers and floats, alone or in lists."""
    values = [getattr(type_, "value_type", type_) for type_ in types]
    is_wide = any(pa.types.is_int64(value) or pa.types.is_uint64(value) for value in values)
    return is_wide and any(map(pa.types.is_floating, values))


def _is_textual(type_: pa.DataType) -> bool:
    return is_text(type_) or pa.types.is_null(type_)
