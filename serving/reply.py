"""Reply: an answer as it goes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recmoe.ranking.columns import AnyRequest
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker


@dataclass(frozen=True)
class Reply:
    """The content of an answer 200."""

    content: bytes | str
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


Read = Callable[[Ranker, bytes], AnyRequest]
"""The request that some bytes are; RequestError where they are none. The ranker tells what a request may hold."""
Encode = Callable[[Ranked], Reply]
