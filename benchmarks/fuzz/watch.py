"""ServerProcess: what a server takes of the machine while it is asked."""

from pathlib import Path

import psutil


class ServerProcess:
    """A process of this machine, with all of its threads and workers.

    Args:
        pid: of the process that was started.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    @classmethod
    def listening(cls, port: int) -> "ServerProcess | None":
        """The one that has a port; None where it is not on this machine, or is another user's."""
        try:
            open_ = psutil.net_connections("tcp")
        except psutil.AccessDenied:
            return None
        pids = [one.pid for one in open_ if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid]
        # The first of several workers' is the one that started the others.
        return cls(min(pids)) if pids else None

    def cpu_s(self) -> float:
        """Seconds of a core so far, to the nanosecond: what ``times`` counts comes in hundredths."""
        return sum(_scheduled_s(one.pid) for one in self._all())

    def resident_bytes(self) -> int:
        """Memory that it has now."""
        return sum(int(one.memory_info().rss) for one in self._all())

    @property
    def is_running(self) -> bool:
        return bool(self._process.is_running()) and self._process.status() != psutil.STATUS_ZOMBIE

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


def _scheduled_s(pid: int) -> float:
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total_ns += int((task / "schedstat").read_text(encoding="utf-8").split()[0])
        except (FileNotFoundError, ProcessLookupError):
            # A thread that has just ended.
            continue
    return total_ns / 1e9
