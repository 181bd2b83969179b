"""FeatureWarnings: values of a request that the model does not know."""

from recmoe.features.blocks import EncodedRows
from recmoe.features.encoder import FeatureEncoder
from recmoe.ranking.request import FeatureWarning


class FeatureWarnings:
    """Tells of missing values and of ids that training has not seen, per feature.

    Args:
        encoder: names the features and their columns.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._columns = {
            name: None if (column := feature.raw_columns(name)[0].name) == name else column
            for name, feature in encoder.schema.features.items()
        }

    def of(self, *parts: EncodedRows) -> list[FeatureWarning]:
        """What there is to tell of the parts of a request, features in the order of the schema."""
        missing = {name: num for part in parts for name, num in part.missing.items()}
        unknown = {name: num for part in parts for name, num in part.unknown.items()}
        return [
            FeatureWarning(feature=name, column=column, code=code, count=found[name])
            for name, column in self._columns.items()
            if name in missing or name in unknown
            for code, found in (("missing", missing), ("unknown", unknown))
            if name in found
        ]
