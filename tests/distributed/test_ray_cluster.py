"""A cluster of real nodes on this machine: one is lost, one joins, one cannot see the run's folder."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from pipelines.ray_session import ray_session
from pipelines.room import Room, check_shared
from pipelines.train import train_on_ray
from recmoe.data.synthetic import write_synthetic
from recmoe.errors import TrainingError
from recmoe.experiment import load_experiment
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult, train_run
from recmoe.training.checkpoint_folder import committed, step_of
from recmoe.training.position import Position

pytestmark = [
    pytest.mark.cluster,
    # Ray's own code, and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NUM_ROWS = 4800
SMALL = (
    "training.epochs=100000",
    "training.batch_size=60",
    "training.checkpoint_every=10",
    "training.keep_checkpoints=100000",
    "training.early_stopping=null",
    "model.architecture={kind: shared_bottom, hidden: [8]}",
    "evaluation.num_resamples=0",
    "evaluation.baselines=[]",
    "evaluation.slices=[]",
    "tracking={kind: none}",
)
# A ceiling for slow machines, not a wait: starting workers imports torch once per worker.
TIMEOUT_S = 400.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node with one core; others join and leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # A node that joins from another thread than the main one may set no signals.
        patch.setattr("ray._private.utils.set_sigterm_handler", lambda _: None)
        patch.setattr("pipelines.room.GRACE_S", 3.0)
        patch.setattr("pipelines.room.GROW_AFTER_S", 1.0)
        patch.setattr("pipelines.room.LOOK_S", 0.5)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", cluster.address)
        try:
            yield cluster
        finally:
            cluster.shutdown()


class Events(threading.Thread):
    """Things that are done to a run one after the other, each when its time has come."""

    def __init__(self, folder: RunFolder, events: list[tuple[Callable[[], bool], Callable[[], object]]]) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.events = events
        self.num_done = 0

    def run(self) -> None:
        try:
            for is_due, action in self.events:
                deadline_s = time.monotonic() + TIMEOUT_S
                while not is_due() and time.monotonic() < deadline_s:
                    time.sleep(0.1)
                if not is_due():
                    break
                action()
                self.num_done += 1
        finally:
            # Whatever went wrong, the job must not go on for ever.
            os.kill(os.getpid(), signal.SIGINT)


def positions(folder: RunFolder) -> list[Position]:
    """Of all checkpoints, in the order of their steps."""
    states = [json.loads((path / "state.json").read_text()) for path in reversed(committed(folder.checkpoints))]
    return [Position.from_json(state) for state in states]


def test_job_goes_on_with_fewer_workers_and_grows_again(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the workers, every row of an epoch is read once, but for less than a step at its end."""
    log = write_synthetic(tmp_path / "log", num_rows=6000).config
    folder = RunFolder(tmp_path / "run")
    second = cluster.add_node(num_cpus=1)
    seen: list[tuple[int, int]] = []

    def has_saved(world_size: int) -> Callable[[], bool]:
        """Whether a group of a size has saved a checkpoint that it has made itself."""

        def is_due() -> bool:
            newest = next(iter(committed(folder.checkpoints)), None)
            state = folder.state
            if newest is None or state.get("world_size") != world_size or state.get("status") != "running":
                return False
            if not seen or seen[-1][0] != world_size:
                seen.append((world_size, step_of(newest)))
            return step_of(newest) > seen[-1][1] + 20

        return is_due

    def lose() -> None:
        cluster.remove_node(second, allow_graceful=False)

    events = Events(
        folder,
        [
            (has_saved(2), lose),
            (has_saved(1), lambda: cluster.add_node(num_cpus=1)),
            (has_saved(2), lambda: None),
        ],
    )
    events.start()
    result: RunResult = train_run(
        load_experiment(log, SMALL),
        folder.root,
        resume=False,
        launch=partial(train_on_ray, num_workers=2, min_workers=1),
        is_quiet=True,
    )
    events.join()

    assert events.num_done == 3
    assert [world_size for world_size, _ in seen] == [2, 1, 2]
    assert result.is_interrupted
    steps = positions(folder)
    assert len(steps) > 6
    for before, after in pairwise(steps):
        num_rows = after.num_samples - before.num_samples
        left = set().union(*(range(*pair) for pair in before.cursor.remaining))
        still_left = set().union(*(range(*pair) for pair in after.cursor.remaining))
        if before.cursor.epoch == after.cursor.epoch:
            assert still_left < left
            assert len(left) - len(still_left) == num_rows
        else:
            skipped = len(left) + (after.cursor.epoch - before.cursor.epoch) * NUM_ROWS - len(still_left) - num_rows
            assert 0 <= skipped < 120 * (after.cursor.epoch - before.cursor.epoch)
    messages = [record.getMessage() for record in caplog.records if record.name == "pipelines.train"]
    assert [text for text in messages if "workers of at most" in text] == [
        "1 workers of at most 2: a step has 60 rows",
        "2 workers of at most 2: a step has 120 rows",
    ]


def test_folder_that_a_node_does_not_see_is_refused(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unshared disk: what is written here is not what the nodes read there."""
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes(timeout=TIMEOUT_S)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Path, "write_text", lambda path, _, **_as: path.touch())
    message = r"/run: .+ of the cluster does not see this folder; put --run-dir where all nodes see it"

    with ray_session(num_workers=2), pytest.raises(TrainingError, match=message):
        check_shared(RunFolder(tmp_path / "run"))

    assert not list((tmp_path / "run").iterdir())


def test_room_that_does_not_come_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    del cluster
    monkeypatch.setattr("pipelines.room.GRACE_S", 0.5)
    monkeypatch.setattr("pipelines.room.WAIT_S", 1.0)
    room = Room(smallest=50, largest=60, needs={"CPU": 1.0})
    message = r"for 1 s the cluster has had room for \d of at least 50 workers; add nodes and go on with --resume"

    with ray_session(num_workers=2), pytest.raises(TrainingError, match=message):
        room.wait(is_stopped=lambda: False)

    assert room.wait(is_stopped=lambda: True) == 0
