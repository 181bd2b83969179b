"""PromotionLog: which version an alias named when, moved by whom; and how it is kept in tags of the model.

Every move is a tag of its own, written once and never again::

    recmoe.promotions.champion.00000041.9c1f0a7e   {"version": "7", "previous": "6", …}

The number counts the moves, the last part is drawn. So the log has no end, and writers at the same moment lose none:
two that draw the same number are in the order of the drawn part. Logs of earlier versions are one tag, the list of all
moves, without number; they are the beginning.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from recmoe.errors import RegistryError

MAX_NOTE = 3000
"""Characters of a note: a tag of a registered model may have 5,000 on PostgreSQL and MySQL."""


@dataclass(frozen=True)
class Promotion:
    """One move of an alias."""

    version: str
    """The version it names since."""
    previous: str | None
    """The version it named before."""
    at: str
    """UTC, ISO 8601."""
    by: str
    """Who moved it."""
    action: Literal["promote", "rollback", "found"]
    """``found``: moved by other means, noticed later."""
    note: str = ""
    """Why, in words."""

    def to_tag(self) -> str:
        """The value of the move's tag.

        Raises:
            RegistryError: the note is too long.
        """
        if len(self.note) > MAX_NOTE:
            raise RegistryError(f"the note has {len(self.note):,} characters; a note may have {MAX_NOTE:,}, shorten it")
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class PromotionLog:
    """The moves of one alias, oldest first.

    Promotions pile up and a rollback takes the top one off, so that rolling back twice goes two back::

        promote 1, promote 2, promote 3, rollback → 2, rollback → 1
    """

    entries: tuple[Promotion, ...] = ()

    @classmethod
    def from_tags(cls, tags: Mapping[str, str], alias: str) -> "PromotionLog":
        """The log of an alias, from all tags of the model."""
        whole = _log_tag(alias)
        own = re.compile(re.escape(whole) + r"\.\d{8}\.[0-9a-f]{8}")
        begun = json.loads(tags.get(whole, "[]"))
        moves = [json.loads(tags[key]) for key in sorted(key for key in tags if own.fullmatch(key))]
        log = cls()
        for move in [*begun, *moves]:
            # Of two moves at the same moment, neither knew of the other: what came before is told by the order.
            log = log.add(replace(Promotion(**move), previous=log.current))
        return log

    def next_tag(self, alias: str) -> str:
        """The key of the next move's tag, which no other writer has."""
        return f"{_log_tag(alias)}.{len(self.entries):08d}.{uuid.uuid4().hex[:8]}"

    def add(self, entry: Promotion) -> "PromotionLog":
        return PromotionLog((*self.entries, entry))

    @property
    def current(self) -> str | None:
        """The version that the last move named."""
        return self.entries[-1].version if self.entries else None

    def pile(self) -> list[str]:
        """Versions from the first promoted to the one in use, without those rolled back."""
        versions: list[str] = []
        for entry in self.entries:
            while entry.action == "rollback" and versions and versions[-1] != entry.version:
                versions.pop()
            if not versions or versions[-1] != entry.version:
                versions.append(entry.version)
        return versions

    def previous(self, existing: Iterable[str]) -> str | None:
        """The version that was in use before, the latest that still exists."""
        known = set(existing)
        return next((version for version in reversed(self.pile()[:-1]) if version in known), None)


def _log_tag(alias: str) -> str:
    return f"recmoe.promotions.{alias}"
