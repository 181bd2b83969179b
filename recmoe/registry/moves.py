"""AliasMoves: moves an alias of a registered model and keeps the log of its moves, beside others who do the same."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from mlflow import MlflowClient

from recmoe.registry.promotions import Promotion, PromotionLog
from recmoe.tracking.account import user_name

_logger = logging.getLogger(__name__)

_SETTLE_S = 0.5
"""Seconds between two looks at an alias that is not where the log has it: another writer may be between the two."""
_LOOKS = 4
"""Looks in a row that must agree before it counts as moved by other means."""

Read = Callable[[], tuple[PromotionLog, str | None]]


class AliasMoves:
    """The moves of one alias of one model.

    Args:
        read: gives the log as it is written, and the version that the alias names.
    """

    def __init__(self, client: MlflowClient, *, name: str, alias: str, read: Read) -> None:
        self._client = client
        self._name = name
        self._alias = alias
        self._read = read

    def log(self) -> PromotionLog:
        """The log, with what was moved by other means added at its end."""
        log, named = self._read()
        looks = 0
        while named is not None and named != log.current:
            looks += 1
            if looks == _LOOKS or not log.entries:
                return log.add(Promotion(named, previous=log.current, at=_now(), by="unknown", action="found"))
            time.sleep(_SETTLE_S)
            before, (log, named) = (log, named), self._read()
            if before != (log, named):
                looks = 0
        return log

    def move(
        self, version: str, *, by: str | None, note: str, action: Literal["promote", "rollback"], log: PromotionLog
    ) -> Promotion:
        """Let the alias name a version; ``log`` is what was decided on.

        Raises:
            RegistryError: the note is too long.
            MlflowException: the registry fails.
        """
        moved = Promotion(
            version=version, previous=log.current, at=_now(), by=by or user_name(), action=action, note=note
        )
        text = moved.to_tag()
        if log.entries and log.entries[-1].action == "found":
            found = PromotionLog(log.entries[:-1]).next_tag(self._alias)
            self._client.set_registered_model_tag(self._name, found, log.entries[-1].to_tag())
        # The log first: an alias that moved without a trace could not be rolled back.
        self._client.set_registered_model_tag(self._name, log.next_tag(self._alias), text)
        for key, value in {"at": moved.at, "by": moved.by, "from": moved.previous or ""}.items():
            self._client.set_model_version_tag(self._name, version, f"recmoe.promoted_{key}", value)
        newest = self._follow()
        if newest.version != version:
            _logger.warning(
                "models:/%s@%s is version %s: %s moved it at the same time; both moves are in the log",
                self._name, self._alias, newest.version, newest.by,
            )  # fmt: skip
        return moved

    def _follow(self) -> Promotion:
        """Set the alias to what the log ends with, whoever else moves it at the same time; returns the last move.

        Who has set the alias looks at the log once more. So the one who sets it last has seen every move that was
        written before, and who writes later sets it later.
        """
        newest = self._read()[0].entries[-1]
        while True:
            self._client.set_registered_model_alias(self._name, self._alias, newest.version)
            seen, newest = newest, self._read()[0].entries[-1]
            if newest.version == seen.version:
                return newest


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
