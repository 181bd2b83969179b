"""watching(): what goes wrong with gates and experts while a run trains is warned of once, and written down."""

import json
import logging
from collections.abc import Callable, Sequence

from recmoe.moe.balance.alarms import CURES, Alarm, RoutingWatch
from recmoe.runs.folder import RunFolder, write_atomically

_logger = logging.getLogger(__name__)


def watching(watch: RoutingWatch, folder: RunFolder, *, is_main: bool) -> Callable[[int], None]:
    """What a trainer calls in every process, with the step; the first one warns."""

    def look(step: int) -> None:
        alarms = watch.alarms()
        if is_main:
            warn_of_alarms(folder, step, alarms)

    return look


def warn_of_alarms(folder: RunFolder, step: int, alarms: Sequence[Alarm]) -> None:
    """Warn of each kind of alarm once in a run, also where it is resumed; keep the warnings in ``alarms.json``."""
    known = _read(folder)
    for kind in dict.fromkeys(alarm.kind for alarm in alarms):
        if kind in known:
            continue
        found = "; ".join(str(alarm) for alarm in alarms if alarm.kind == kind)
        known[kind] = f"step {step}: {kind}: {found}. Against it: {CURES[kind]}"
        _logger.warning("%s", known[kind])
        write_atomically(folder.alarms, json.dumps(known, indent=2))


def alarm_warnings(folder: RunFolder) -> tuple[str, ...]:
    """What a run was warned of, for its report page."""
    return tuple(_read(folder).values())


def _read(folder: RunFolder) -> dict[str, str]:
    return dict(json.loads(folder.alarms.read_text(encoding="utf-8"))) if folder.alarms.exists() else {}
