"""One of several processes behind a port, as ``serving.workers`` starts it: ``python -m serving.worker ORDER``."""

import logging
import os
import signal
import socket
import sys
import threading

from recmoe.errors import BundleError, RecmoeError
from recmoe.ranking.ranker import Ranker
from recmoe.runs.source import load_ranker
from serving.orders import WorkerOrder, WorkerReport
from serving.process import answer


def main(text: str) -> int:
    """Serve as ordered; the exit code."""
    logging.basicConfig(format=f"worker {os.getpid()} %(levelname)s: %(message)s", level=logging.WARNING)
    order = WorkerOrder.model_validate_json(text)
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()

    def report(message: WorkerReport) -> None:
        os.write(order.reports, f"{message.model_dump_json()}\n".encode())

    try:
        answer(
            socket.socket(fileno=order.listener),
            lambda: _load(order),
            order.settings,
            source=order.source,
            listens_at_once=order.digest is None,
            on_ready=lambda model: report(WorkerReport(ready=model)),
        )
    except RecmoeError as error:
        report(WorkerReport(error=str(error)))
        return 1
    return 0


def _load(order: WorkerOrder) -> Ranker:
    settings = order.settings
    ranker = load_ranker(
        order.source,
        runs=order.runs,
        registry_uri=settings.registry,
        strict_fields=settings.strict_fields,
        precision=settings.precision,
    )
    if order.digest is not None and ranker.info.digest != order.digest:
        raise BundleError(f"{order.source} has changed since the server was started; start the server anew")
    return ranker


def _stop_with_the_parent() -> None:
    """The parent never writes; the pipe ends when it does."""
    # Not sys.stdin's own read: its lock would still be held when Python ends.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
