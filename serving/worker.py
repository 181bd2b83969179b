"""One of several processes behind a port, as ``serving.workers`` starts it: ``python -m serving.worker SOURCE``.

Its order is the first line of its standard input, commands are those that follow. What is imported is imported before:
a process that waits for its order takes the place of another one in little more time than its model takes to load.
"""

import os
import queue
import signal
import socket
import sys
import threading
from io import FileIO

from recmoe.errors import RecmoeError
from recmoe.runs.source import import_for
from serving.calibration.watch import Calibration
from serving.models.source import ModelSource
from serving.observability.logs import logging_as
from serving.orders import ModelEvents, WorkerCommand, WorkerOrder, WorkerReport
from serving.process import answer


def main(source: str) -> int:
    """Serve once it is ordered, what comes from a source; the exit code."""
    import_for(source)
    # Not sys.stdin's own reader: its lock would still be held when Python ends.
    pipe = FileIO(sys.stdin.fileno(), closefd=False)
    line = pipe.readline()
    if not line:
        # The parent has ended, and never needed this process.
        return 0
    order = WorkerOrder.model_validate_json(line)
    with logging_as(order.settings.log_format, is_worker=True):
        return _serve(order, pipe)


def _serve(order: WorkerOrder, pipe: FileIO) -> int:
    commands: queue.SimpleQueue[WorkerCommand] = queue.SimpleQueue()
    calibration = Calibration()
    threading.Thread(target=_listen_to_the_parent, args=(pipe, commands, calibration), daemon=True).start()
    is_reporting = threading.Lock()

    def report(message: WorkerReport) -> None:
        # Long lines are not written in one go: those of two threads would mix.
        with is_reporting:
            os.write(order.reports, f"{message.model_dump_json()}\n".encode())

    try:
        answer(
            socket.socket(fileno=order.listener),
            ModelSource(order.source, runs=order.runs, settings=order.settings),
            others=order.model,
            refused=order.refused,
            events=ModelEvents(
                ready=lambda model: report(WorkerReport(ready=model)),
                swapped=lambda model: report(WorkerReport(swapped=model)),
                refused=lambda refusal: report(WorkerReport(refused=refusal)),
                forgiven=lambda role: report(WorkerReport(forgiven=role)),
                asked=lambda: report(WorkerReport(asked=True)),
                served=lambda served: report(WorkerReport(served=served)),
            ),
            commands=commands,
            calibration=calibration,
        )
    except RecmoeError as error:
        report(WorkerReport(error=str(error)))
        return 1
    return 0


def _listen_to_the_parent(pipe: FileIO, commands: "queue.SimpleQueue[WorkerCommand]", calibration: Calibration) -> None:
    """Commands, a line each; the pipe ends when the parent does, and this process with it."""
    for line in pipe:
        command = WorkerCommand.model_validate_json(line)
        if command.calibration is not None:
            calibration.tasks = tuple(command.calibration)
        else:
            commands.put(command)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
