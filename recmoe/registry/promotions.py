"""PromotionLog: which version an alias named when, moved by whom."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

_MAX_ENTRIES = 400
"""MLflow keeps 100,000 characters in a tag; the oldest entries go first."""


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


@dataclass(frozen=True)
class PromotionLog:
    """The moves of one alias, oldest first.

    Promotions pile up and a rollback takes the top one off, so that rolling back twice goes two back::

        promote 1, promote 2, promote 3, rollback → 2, rollback → 1
    """

    entries: tuple[Promotion, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> "PromotionLog":
        return cls(tuple(Promotion(**entry) for entry in json.loads(text)))

    def to_json(self) -> str:
        return json.dumps([asdict(entry) for entry in self.entries[-_MAX_ENTRIES:]])

    def add(self, entry: Promotion) -> "PromotionLog":
        return PromotionLog((*self.entries, entry))

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
