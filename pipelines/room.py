"""Room: how many workers a Ray cluster has a place for, now that nodes come and go."""

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recmoe.errors import TrainingError
from recmoe.runs.folder import RunFolder

LOG = logging.getLogger(__name__)

GRACE_S = 30.0
"""Seconds that the places of all workers are waited for before a job goes on with fewer."""
WAIT_S = 600.0
"""Seconds that a cluster gets to make room for the fewest workers; nodes may have to be started."""
GROW_AFTER_S = 120.0
"""Seconds that there must be room for more workers before a job is stopped to get them; stopping costs a restart."""
LOOK_S = 2.0
POLL_S = 0.5
SEEN_FILE = "seen"


@dataclass(frozen=True)
class Room:
    """Places for ``smallest`` to ``largest`` workers that need some resources each.

    Another job on the same cluster takes places like a node that is gone: what is free counts.
    """

    smallest: int
    largest: int
    needs: Mapping[str, float]
    """By resource of Ray, what one worker takes."""

    def check(self) -> None:
        """Ask the cluster for places for all workers; on this machine alone, no more can come.

        Raises:
            TrainingError: there will never be room for the fewest.
        """
        import ray
        from ray.autoscaler.sdk import request_resources

        if is_cluster():
            request_resources(bundles=[dict(self.needs)] * self.largest)
            return
        there = ray.cluster_resources()
        for name, amount in self.needs.items():
            count = int(amount * self.smallest)
            if there.get(name, 0) < count:
                raise TrainingError(
                    f"{count} {name}s are needed, one per worker, and Ray has {there.get(name, 0):.0f}; "
                    "ask for fewer --workers, or training.device=cpu where it is GPUs that are missing"
                )

    def give_back(self) -> None:
        """Let the cluster shrink again."""
        from ray.autoscaler.sdk import request_resources

        if is_cluster():
            request_resources(bundles=[])

    def num_free(self) -> int:
        """Workers that could be started now."""
        import ray

        return self._num_in(ray.available_resources())

    def num_places(self) -> int:
        """Workers that the nodes could hold if they did nothing else."""
        import ray

        return self._num_in(ray.cluster_resources())

    def _num_in(self, resources: Mapping[str, float]) -> int:
        return min([self.largest, *(int(resources.get(name, 0) // amount) for name, amount in self.needs.items())])

    def wait(self, *, is_stopped: Callable[[], bool]) -> int:
        """How many workers to start: all, or after ``GRACE_S`` as many as there is room for.

        Returns:
            The number; 0 if the job was told to stop meanwhile.

        Raises:
            TrainingError: for ``WAIT_S`` there was no room for the fewest.
        """
        started_s = time.monotonic()
        is_told = False
        while not is_stopped():
            free, waited_s = self.num_free(), time.monotonic() - started_s
            if free == self.largest or (free >= self.smallest and waited_s > GRACE_S):
                return free
            if waited_s > max(WAIT_S, GRACE_S):
                raise TrainingError(
                    f"for {waited_s:,.0f} s the cluster has had room for {free} of at least {self.smallest} workers; "
                    "add nodes and go on with --resume, or allow fewer with --workers FEWEST:MOST"
                )
            if waited_s > GRACE_S and not is_told:
                LOG.warning("waiting for room for %d workers; the cluster has room for %d", self.smallest, free)
                is_told = True
            time.sleep(POLL_S)
        return 0


class Growth:
    """Whether a running job could have more workers: there is room for them, and has been for a while.

    Args:
        room: of the job.
        num_workers: those it has.
    """

    def __init__(self, room: Room, num_workers: int) -> None:
        self._room = room
        self._num_workers = num_workers
        self._looked_s = self._since_s = time.monotonic()
        self.is_due = False
        """Whether it was told so."""

    def is_possible(self) -> bool:
        """Look, every ``LOOK_S``; once it is possible it stays so, for the job is told to stop then."""
        now_s = time.monotonic()
        if not self.is_due and self._num_workers < self._room.largest and now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            # While workers are being started their places are free.
            if self._room.num_places() <= self._num_workers or self._room.num_free() == 0:
                self._since_s = now_s
            self.is_due = now_s - self._since_s > GROW_AFTER_S
        return self.is_due


def is_cluster() -> bool:
    """Whether Ray runs on machines that others have started, and may grow."""
    return bool(os.environ.get("RAY_ADDRESS"))


def check_shared(folder: RunFolder) -> None:
    """Ask every node that may run workers whether it sees the run's folder.

    Raises:
        TrainingError: one does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if len(nodes) < 2:
        return
    # An older run may have left a folder of this name on a disk that is not shared.
    mark, text = folder.root.resolve() / SEEN_FILE, uuid.uuid4().hex
    mark.write_text(text, encoding="utf-8")
    try:
        asked = [
            ray.remote(num_cpus=0)(_reads)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True))
            .remote(mark)
            for node in nodes
        ]
        blind = sorted({host for host, seen in ray.get(asked) if seen != text})
    finally:
        mark.unlink()
    if blind:
        raise TrainingError(
            f"{folder.root}: {', '.join(blind)} of the cluster does not see this folder; put --run-dir where all nodes "
            "see it under the same path, such as a network file system"
        )


def _reads(mark: Path) -> tuple[str, str]:
    """This node's name, and what it reads."""
    return socket.gethostname(), mark.read_text(encoding="utf-8") if mark.exists() else ""
