"""FeatureSchema: which columns of a log are features, of which kind, on which side."""

from collections.abc import Iterator

from pydantic import NonNegativeInt, PositiveInt

from recmoe.config import Config
from recmoe.features.kinds import FeatureConfig
from recmoe.features.kinds.parts import IdTable, TableUse
from recmoe.features.raw_column import RawColumn


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

    def columns(self) -> Iterator[tuple[str, RawColumn]]:
        """The columns that features read, each with the feature's name."""
        for name, feature in self.features.items():
            for column in feature.columns(name):
                yield name, column

    def tables(self) -> dict[str, IdTable]:
        """The tables of ids, in the order in which features first name them."""
        tables: dict[str, IdTable] = {}
        for uses in self._uses().values():
            poolings = [use.pooling for _, use in uses if use.pooling is not None]
            first = uses[0][1]
            tables[first.table] = IdTable(first.encoding, first.width, poolings[0] if poolings else "sum")
        return tables

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
        tables = self.tables()
        for table, uses in self._uses().items():
            owner, first = uses[0]
            for name, use in uses:
                path = f"features.{name}"
                if "#" in table:
                    yield f"{path}.table", f"table {table} may not contain #, which marks the buckets of numbers"
                if use.encoding != first.encoding:
                    yield f"{path}.encoding", f"shares table {table} with {owner}, so its encoding must be the same"
                if use.width != first.width:
                    yield f"{path}.width", f"shares table {table} with {owner}, so its width must be the same"
                if use.pooling not in (None, tables[table].pooling):
                    yield f"{path}.pooling", f"shares table {table}, so its pooling must be the same as the others'"
