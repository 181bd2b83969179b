"""FeatureSchema: which columns of a log are features, of which kind, on which side."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic import NonNegativeInt, PositiveInt

from recmoe.config import Config
from recmoe.features.encodings import VocabularyConfig
from recmoe.features.kinds import Feature, FeatureConfig
from recmoe.features.kinds.parts import IdTable, TableUse
from recmoe.features.raw_column import RawColumn

T = TypeVar("T")


class FeatureSchema(Config):
    """All features of a model, and the columns that give rows their place."""

    width: PositiveInt = 16
    """Floats per table row where a feature does not say."""
    features: dict[str, FeatureConfig]
    group: str | None = None
    """Column whose value joins the rows of one list (request, session or user), for metrics per list. Rows where it is
    null are in no list: metrics per list leave them out, and each is resampled by itself for the intervals."""
    item: str | None = None
    """Column that identifies a candidate in requests and responses."""
    seed: NonNegativeInt = 0
    """Seed of the hash of ids."""

    def raw_columns(self) -> Iterator[tuple[str, RawColumn]]:
        """The columns that features read, each with the feature's name."""
        # Typed as the protocol, by which the type checker holds every kind to it.
        features: Mapping[str, Feature] = self.features
        for name, feature in features.items():
            for column in feature.raw_columns(name):
                yield name, column

    def tables(self) -> dict[str, IdTable]:
        """The tables of ids, in the order in which features first name them."""
        return {
            table: IdTable(
                encoding=_first([use.encoding for _, use in uses]) or VocabularyConfig(),
                width=_first([use.width for _, use in uses]) or self.width,
                pooling=_first([use.pooling for _, use in uses]) or "sum",
            )
            for table, uses in self._uses().items()
        }

    def _uses(self) -> dict[str, list[tuple[str, TableUse]]]:
        """By table, the features that look it up, and how."""
        uses: dict[str, list[tuple[str, TableUse]]] = {}
        for name, feature in self.features.items():
            for use in feature.tables(name, width=self.width):
                uses.setdefault(use.table, []).append((name, use))
        return uses

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if not self.features:
            yield "features", "at least one feature is needed"
        tables = self._uses()
        for table, uses in tables.items():
            yield from _sharing_problems(table, uses)
            for name, use in uses:
                path = f"features.{name}.{use.key}table"
                if "#" in table and use.origin == "named":
                    yield path, f"table {table} may not contain #, which marks the buckets of numbers"
                if use.origin == "borrowed" and all(other.origin == "borrowed" for _, other in uses):
                    owned = [other for other, of in tables.items() if any(one.origin == "named" for _, one in of)]
                    near = difflib.get_close_matches(table, owned, n=1)
                    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(owned) or 'none'}"
                    yield path, f"no other feature looks up a table {table}; {hint}"


def _sharing_problems(table: str, uses: Sequence[tuple[str, TableUse]]) -> Iterator[tuple[str, str]]:
    """Where features that share a table do not agree."""
    encoding = _first([(name, use.encoding) for name, use in uses if use.encoding is not None])
    width = _first([(name, use.width) for name, use in uses if use.width is not None])
    pooling = _first([use.pooling for _, use in uses])
    for name, use in uses:
        path = f"features.{name}.{use.key}"
        if encoding is not None and use.encoding not in (None, encoding[1]):
            yield f"{path}encoding", f"shares table {table} with {encoding[0]}, so its encoding must be the same"
        if width is not None and use.width not in (None, width[1]):
            yield f"{path}width", f"shares table {table} with {width[0]}, so its width must be the same"
        if use.pooling not in (None, pooling):
            yield f"{path}pooling", f"shares table {table}, so its pooling must be the same as the others'"


def _first(values: Iterable[T | None]) -> T | None:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)
