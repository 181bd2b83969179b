"""Reply: an answer as it goes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recmoe.ranking.columns import DecodedRequest
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker


@dataclass(frozen=True)
class Reply:
    """The content of an answer 200."""

    content: bytes | str
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


Decode = Callable[[Ranker, bytes], DecodedRequest]
"""Raises RequestError where the bytes are no request that the ranker can answer."""
Read = Callable[[bytes], tuple[Ranker, DecodedRequest]]
"""The same where the bytes name the model too."""
Encode = Callable[[Ranked], Reply]
