"""The encodings of ids, one file per kind.

To add one: a file with a config and what looks its ids up, and one line in ``EncodingConfig``. A config offers what
``Encoding`` says; while the ids of one are learned, ``Growth`` holds them.
"""

from typing import Annotated

from pydantic import Field

from recmoe.features.encodings.dynamic import DynamicConfig
from recmoe.features.encodings.encoding import Encoding, Growth
from recmoe.features.encodings.hashed import HashConfig
from recmoe.features.encodings.index import IndexConfig
from recmoe.features.encodings.vocabulary import VocabularyConfig

EncodingConfig = Annotated[VocabularyConfig | HashConfig | IndexConfig | DynamicConfig, Field(discriminator="kind")]

__all__ = ["DynamicConfig", "Encoding", "EncodingConfig", "Growth", "HashConfig", "IndexConfig", "VocabularyConfig"]
