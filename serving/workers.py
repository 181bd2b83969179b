"""Workers: processes that share a port, started, watched and stopped by a parent that serves nothing itself.

The first one loads the model and answers probes meanwhile. The others start once it is ready, and take connections once
they are: a client never meets one that is not. All have the parent's socket, so that who waits there is not lost with
a worker. Once all are ready there is a spare one, which has imported what it needs and waits to take a place.

Where the source is an alias, every worker follows it by itself, and they load one after the other. What one of them
refuses, the parent tells the others, and those that took it go back; a look that one is asked for is asked of all. A
worker that is replaced begins with what another one serves, which is proved, and looks at the alias then. Meanwhile
workers may answer with different versions, and every answer names its own.
"""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from recmoe.errors import ServingError
from serving.agreement import Agreement
from serving.calibration.watch import CalibrationWatch, turn_s
from serving.orders import SHARED_METRICS, ModelEvents, WorkerCommand, WorkerOrder, WorkerReport
from serving.settings import ServeSettings

_logger = logging.getLogger(__name__)

_TURN_S = 0.1
_STOP_S = 5.0
"""Seconds beyond its grace after which a worker is ended."""
_LONGEST_PAUSE_S = 30.0
_SPARE_PAUSE_S = 1.0
"""Before the next start where a spare worker has ended by itself."""


@dataclass(eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    reports: int
    their_reports: int
    """Number of the other end of that pipe, in the process."""
    text: bytes = b""
    is_ready: bool = False
    error: str | None = None

    @property
    def ended_how(self) -> str:
        code = self.process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"worker {self.process.pid} {how}" + (f": {self.error}" if self.error else "")


@dataclass
class Workers:
    """The workers of one port.

    Args:
        source, settings, runs: see ``serve``.
        listener: the socket that they share.
        events: what is called when something becomes of the models.
    """

    source: str
    settings: ServeSettings
    listener: socket.socket
    runs: Path
    events: InitVar[ModelEvents]
    _running: list[_Worker] = field(default_factory=list)
    _spare: _Worker | None = None
    """Waits for its order."""
    _is_stopping: bool = False
    _is_asked: bool = False
    """Whether the operator wants what was refused to be tried again."""
    _pause_s: float = 0.0
    """Before the next start, where the last one came to nothing."""
    _next_start_s: float = 0.0
    _next_look_s: float = 0.0
    """At what workers have predicted."""

    def __post_init__(self, events: ModelEvents) -> None:
        self._agreement = Agreement(events)
        self._calibration = CalibrationWatch(self.settings)

    def run(self) -> None:
        """Until SIGINT or SIGTERM; ServingError if the first worker cannot serve."""
        with tempfile.TemporaryDirectory(prefix="recmoe-metrics-") as metrics:
            before = self._watch_signals()
            try:
                while not self._is_stopping:
                    self._start_missing(Path(metrics))
                    self._hear(_TURN_S)
                    self._bury(Path(metrics))
                    self._judge()
                    if self._is_asked:
                        self._is_asked = False
                        self._agreement.retry(self._tell)
                self._stop()
            finally:
                for worker in [*self._running, *self._spares()]:
                    worker.process.kill()
                    worker.process.wait()
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _watch_signals(self) -> dict[int, "signal._HANDLER"]:
        if threading.current_thread() is not threading.main_thread():
            return {}

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._is_stopping = True

        def ask(_number: int, _frame: FrameType | None) -> None:
            self._is_asked = True

        handlers = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGUSR1: ask}
        return {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def _start_missing(self, metrics: Path) -> None:
        wanted = self.settings.workers if self._agreement.model is not None else 1
        while len(self._running) < wanted and time.monotonic() >= self._next_start_s:
            worker = self._spare or self._start(metrics)
            self._spare = None
            self._running.append(worker)
            self._order(worker)
        is_complete = len(self._running) == self.settings.workers and all(one.is_ready for one in self._running)
        if self._spare is None and is_complete and time.monotonic() >= self._next_start_s:
            self._spare = self._start(metrics)

    def _start(self, metrics: Path) -> _Worker:
        """A process that waits for its order."""
        ours, theirs = os.pipe()
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.worker", self.source],
            stdin=subprocess.PIPE,
            pass_fds=(self.listener.fileno(), theirs),
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), SHARED_METRICS: str(metrics)},
            # Ctrl-C is for the parent, which tells its workers.
            start_new_session=True,
        )
        os.close(theirs)
        return _Worker(process, ours, theirs)

    def _order(self, worker: _Worker) -> None:
        """Let it serve; one that has just ended is found out later."""
        order = WorkerOrder(
            source=self.source,
            runs=self.runs.resolve(),
            settings=self.settings,
            listener=self.listener.fileno(),
            reports=worker.their_reports,
            model=self._agreement.model,
            refused=list(self._agreement.refused.values()),
        )
        _write(worker, order.model_dump_json())

    def _spares(self) -> list[_Worker]:
        return [] if self._spare is None else [self._spare]

    def _hear(self, time_s: float) -> None:
        """Read what workers report, or wait so long."""
        readable, _, _ = select.select([worker.reports for worker in self._running], [], [], time_s)
        for worker in self._running:
            if worker.reports not in readable:
                continue
            read = os.read(worker.reports, 65536)
            *lines, worker.text = (worker.text + read).split(b"\n")
            for line in lines:
                self._take(worker, WorkerReport.model_validate_json(line))
            if not read:
                # The pipe ends a little before its process.
                time.sleep(_TURN_S / 10)

    def _take(self, worker: _Worker, report: WorkerReport) -> None:
        worker.error = report.error
        if report.ready is not None:
            worker.is_ready, self._pause_s = True, 0.0
        model = self._agreement.model
        # While workers change their model one after the other, some still report on the one before.
        if report.served is not None and model is not None and report.served.digest == model.digest:
            self._calibration.take(report.served)
        self._agreement.take(report, lambda command: self._tell(command, but=worker))

    def _judge(self) -> None:
        """Tell all workers what their predictions together say, every so often."""
        if time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + turn_s(self.settings)
            if known := self._calibration.check():
                self._tell(WorkerCommand(calibration=known))

    def _tell(self, command: WorkerCommand, but: _Worker | None = None) -> None:
        """Tell all workers but one; those that have just ended are found out later."""
        for worker in self._running:
            if worker is not but:
                _write(worker, command.model_dump_json())

    def _bury(self, metrics: Path) -> None:
        """Note who has ended; they are started anew, at once if they had served."""
        for spare in self._spares():
            if spare.process.poll() is not None:
                self._spare = None
                _close(spare)
                self._next_start_s = time.monotonic() + _SPARE_PAUSE_S
        for worker in [worker for worker in self._running if worker.process.poll() is not None]:
            self._forget(worker)
            mark_process_dead(worker.process.pid, str(metrics))  # type: ignore[no-untyped-call]
            if self._agreement.model is None:
                raise ServingError(worker.error or worker.ended_how)
            if not worker.is_ready:
                self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or 1.0)
            self._next_start_s = time.monotonic() + self._pause_s
            _logger.warning("%s; another is started in %g s", worker.ended_how, self._pause_s)

    def _forget(self, worker: _Worker) -> None:
        self._running.remove(worker)
        _close(worker)

    def _stop(self) -> None:
        """Let every worker answer what it has; what does not end is ended."""
        self.listener.close()
        for worker in self._running:
            worker.process.terminate()
        end_s = time.monotonic() + self.settings.drain_delay_s + self.settings.drain_s + _STOP_S
        while self._running and time.monotonic() < end_s:
            self._hear(_TURN_S)
            for worker in [worker for worker in self._running if worker.process.poll() is not None]:
                self._forget(worker)
        for worker in self._running:
            _logger.warning("worker %d did not end in time and is killed", worker.process.pid)


def _write(worker: _Worker, line: str) -> None:
    """Tell a worker something; one that has just ended is found out later."""
    if worker.process.stdin is not None:
        with suppress(BrokenPipeError):
            worker.process.stdin.write(f"{line}\n".encode())
            worker.process.stdin.flush()


def _close(worker: _Worker) -> None:
    """The ends of its pipes."""
    os.close(worker.reports)
    if worker.process.stdin is not None:
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
