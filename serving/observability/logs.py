"""logging_as: where a server's log goes and how a line looks, as text or as one JSON object."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from serving.observability.call import CALL

LogFormat = Literal["text", "json"]

_PACKAGES = ("recmoe", "serving", "pipelines")
"""The command line has given them handlers of their own."""


class TextLines(logging.Formatter):
    """``warning: the message [request 4f2a…]``, after ``worker 17`` where several processes write.

    Args:
        prefix: before every line.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        call = CALL.get(None)
        of_request = f" [request {call.request_id}]" if call is not None else ""
        # The request stands before a traceback.
        record = logging.makeLogRecord({**vars(record), "msg": record.getMessage() + of_request, "args": None})
        return f"{self._prefix}{record.levelname.lower()}: {super().format(record)}"


class JsonLines(logging.Formatter):
    """An object per line; what a record has in ``fields`` (``extra={"fields": {…}}``) stands beside the rest.

    Example::

        {"time": "2026-11-20T10:15:02.317+00:00", "level": "warning", "logger": "serving.observability.slow",
         "message": "slow request: 212 ms …", "process": 17, "request_id": "4f2a…", "total_ms": 212.4, …}
    """

    def format(self, record: logging.LogRecord) -> str:
        call = CALL.get(None)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **({"request_id": call.request_id} if call is not None else {}),
            **getattr(record, "fields", {}),
            **({"exception": self.formatException(record.exc_info)} if record.exc_info else {}),
        }
        return json.dumps(line, default=str)


@contextmanager
def logging_as(log_format: LogFormat, *, is_worker: bool = False) -> Iterator[None]:
    """Let everything that is logged go to stderr in a form, and be as it was afterwards.

    Warnings and errors are shown, as JSON also what the server tells of its models.

    Args:
        is_worker: whether other processes write there too.
    """
    is_json = log_format == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if is_json else TextLines(prefix=f"worker {os.getpid()} " if is_worker else ""))
    handler.setLevel(logging.INFO if is_json else logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("", *_PACKAGES)]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    if is_json:
        logging.getLogger("serving").setLevel(logging.INFO)
        logging.captureWarnings(True)
        # MLflow would write in a form of its own.
        os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, propagates, level in before:
            logger.handlers, logger.propagate = handlers, propagates
            logger.setLevel(level)
