"""FeatureWarnings: what of a request the model or a store does not know."""

from collections.abc import Callable, Mapping

from recmoe.features.blocks import EncodedRows
from recmoe.features.encoder import FeatureEncoder
from recmoe.ranking.items.candidates import StoredItems
from recmoe.ranking.items.users import StoredUsers
from recmoe.ranking.look_ups import StoreName
from recmoe.ranking.request import FeatureWarning
from recmoe.ranking.stages import EncodedRequest


class FeatureWarnings:
    """Tells of fields, ids and values that are not known, of missing values, and of scores that are no numbers.

    Args:
        encoder: names the features and their columns.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._columns = {
            name: None if (column := feature.raw_columns(name)[0].name) == name else column
            for name, feature in encoder.schema.features.items()
        }

    def of(
        self,
        encoded: EncodedRequest,
        *,
        stores: Mapping[StoreName, StoredItems | StoredUsers | None],
        hint: Callable[[str], str | None],
        lost: Mapping[str, int],
    ) -> list[FeatureWarning]:
        """What there is to tell of a request, features in the order of the schema.

        Args:
            stores: in which its ids were looked up.
            hint: what a field may be meant to be.
            lost: scores that are no numbers, by formula.
        """
        request = encoded.columns
        found = [
            FeatureWarning(feature=field, code="unknown_field", count=count, hint=hint(field))
            for field, count in request.ignored.items()
        ]
        for name, stored in stores.items():
            if stored is not None:
                counts = request.look_ups[name]
                for code, count in (("not_in_store", counts.num_misses), ("store_away", counts.num_failed)):
                    if count:
                        found.append(FeatureWarning(feature=stored.store.column, code=code, count=count))
        found += self.of_values(encoded.shared, encoded.own.rows)
        return found + [FeatureWarning(feature=name, code="not_finite", count=num) for name, num in lost.items() if num]

    def of_values(self, *parts: EncodedRows) -> list[FeatureWarning]:
        """What there is to tell of the values of some rows."""
        missing = {name: num for part in parts for name, num in part.missing.items()}
        unknown = {name: num for part in parts for name, num in part.unknown.items()}
        return [
            FeatureWarning(feature=name, column=column, code=code, count=found[name])
            for name, column in self._columns.items()
            if name in missing or name in unknown
            for code, found in (("missing", missing), ("unknown", unknown))
            if name in found
        ]
