"""CsvConfig: how the cells of a CSV file are read, as far as it is not to be recognised."""

import codecs
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from recmoe.config import Config

Character = Annotated[str, Field(min_length=1, max_length=1)]


class CsvConfig(Config):
    """How CSV files are written. What is left out is recognised, for all files and splits alike."""

    separator: Character | None = None
    """Between two cells; recognised by default among comma, semicolon, tab and |."""
    encoding: str | None = None
    """Of the text, such as windows-1252 or gb18030; UTF-8, UTF-16 and UTF-32 are recognised."""
    header: bool | None = None
    """Whether the first line names the columns; by default it must look like names, or ``columns`` are given."""
    columns: tuple[str, ...] = ()
    """Names of the columns, from left to right; those of the first line by default."""
    null_values: tuple[str, ...] | None = None
    """Unquoted cells that are null, in columns of every type; by default those that cannot be meant otherwise."""
    decimal: Character | None = None
    """Between a number and its fraction; recognised by default."""
    thousands: Character | None = None
    """Between groups of three digits; recognised by default where the fraction shows what is meant."""

    @property
    def has_header(self) -> bool:
        """Whether the first line is no row."""
        return not self.columns if self.header is None else self.header

    @property
    def is_settled(self) -> bool:
        """Whether it says all that must be the same in all files."""
        return self.header is not None and self.decimal is not None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                yield "encoding", f"no such encoding: {self.encoding}; name one such as utf-8, windows-1252 or gb18030"
        if self.header is False and not self.columns:
            yield "columns", "a file without a line of names needs their names here"
        if len(set(self.columns)) != len(self.columns):
            yield "columns", "the same name is given twice"
        if self.decimal is not None and self.decimal == self.thousands:
            yield "thousands", "must differ from decimal"
        for key in ("decimal", "thousands"):
            if (character := getattr(self, key)) is not None and character.isalnum():
                yield key, f"expected a mark such as . or , found {character}"


READ_AS_IT_IS = CsvConfig()
"""Everything is recognised."""
