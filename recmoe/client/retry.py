"""When a call is tried again, and how long it waits before."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED = (429, 503)
"""Answers of a server that has not ranked: it is busy, or its model is not ready."""

_FIRST_S = 0.05
_LONGEST_S = 1.0


def wait_s(attempt: int, *, retry_after_s: float = 0.0) -> float:
    """Seconds until the next try: what the server asked for, and a random part that doubles with every try.

    Clients that were refused together do not come back together.

    Args:
        attempt: tries before, counted from 0.
    """
    return retry_after_s + random.uniform(0.0, min(_LONGEST_S, _FIRST_S * 2**attempt))


def retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, as a number or as a date; 0 where it cannot be read."""
    text = (header or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    # A date that names no zone is read as one without; HTTP's are all in GMT.
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
