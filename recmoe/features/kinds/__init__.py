"""The kinds of features, one file each; the union is the registry.

To add one: a file with a config that offers what ``Feature`` says and a reader that encodes its rows, and one line in
``FeatureConfig``.
"""

from typing import Annotated

from pydantic import Field

from recmoe.features.kinds.feature import Feature
from recmoe.features.kinds.id import IdFeature
from recmoe.features.kinds.id_list import IdListFeature
from recmoe.features.kinds.numeric import GivenBuckets, NumericFeature, QuantileBuckets
from recmoe.features.kinds.sequence import SequenceColumn, SequenceFeature

FeatureConfig = Annotated[IdFeature | IdListFeature | NumericFeature | SequenceFeature, Field(discriminator="kind")]

__all__ = [
    "Feature",
    "FeatureConfig",
    "GivenBuckets",
    "IdFeature",
    "IdListFeature",
    "NumericFeature",
    "QuantileBuckets",
    "SequenceColumn",
    "SequenceFeature",
]
