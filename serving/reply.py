"""Reply: an answer as it goes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.stages import AnyDecoded


@dataclass(frozen=True)
class Reply:
    """The content of an answer 200."""

    content: bytes | str
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


Decode = Callable[[Ranker, bytes], AnyDecoded]
"""Raises RequestError where the bytes are no request that the ranker can answer."""
Encode = Callable[[Ranked], Reply]
