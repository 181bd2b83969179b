"""Training in two Ray workers: what it makes, a worker that is killed, an error in one worker."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ray.train import ControllerError

from pipelines.ray_session import ray_session
from pipelines.train import train_on_ray
from recmoe.data.synthetic import write_synthetic
from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.export.bundle import ModelBundle
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.facts import RunFacts
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import Launch, RunResult, train_run

pytestmark = [
    pytest.mark.cluster,
    # Ray's own code, and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NUM_WORKERS = 2
SMALL = (
    "training.epochs=3",
    "training.batch_size=64",
    "training.checkpoint_every=10",
    "model.architecture={kind: mmoe, num_experts: 2, expert_hidden: [16], dropout: 0.1}",
    "evaluation.num_resamples=0",
    "evaluation.baselines=[]",
    "evaluation.slices=[]",
    "tracking={kind: none}",
)
NUM_STEPS = 3 * (4800 // (64 * NUM_WORKERS))
IN_RAY = partial(train_on_ray, num_workers=NUM_WORKERS)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 rows: 4,800 to train with, 600 to validate, 600 to test."""
    return write_synthetic(tmp_path_factory.mktemp("log"), num_rows=6000).config


@pytest.fixture(scope="module")
def others() -> set[psutil.Process]:
    """Children of this process that other tests have left, such as the tracker of multiprocessing."""
    return set(psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def session(others: set[psutil.Process]) -> Iterator[ExitStack]:
    """One Ray for all tests; whoever closes it sees it end."""
    del others
    with ExitStack() as stack:
        stack.enter_context(ray_session(num_workers=NUM_WORKERS))
        yield stack


def train(log: Path, root: Path, *overrides: str, launch: Launch = IN_RAY) -> RunResult:
    return train_run(load_experiment(log, [*SMALL, *overrides]), root, resume=False, launch=launch, is_quiet=True)


@pytest.fixture(scope="module")
def unbroken(log: Path, session: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    del session
    return train(log, tmp_path_factory.mktemp("unbroken") / "run")


def worker_processes() -> set[psutil.Process]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if any("RayTrainWorker" in part for part in process.cmdline()):
                found.add(process)
        except psutil.Error:
            continue
    return found


class WorkerKiller(threading.Thread):
    """Kills one worker with -9 as soon as a checkpoint of ``step`` or later is committed."""

    def __init__(self, root: Path, *, step: int) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.step = step
        self.killed_at: int | None = None
        self.seen: set[psutil.Process] = set()
        """All workers that there were before and after."""
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.02):
            steps = [int(folder.name.removeprefix("step-")) for folder in self.root.glob("checkpoints/step-*")]
            if self.killed_at is None and max(steps, default=0) < self.step:
                continue
            workers = worker_processes()
            self.seen |= workers
            if self.killed_at is None and workers:
                min(workers, key=lambda process: process.pid).kill()
                self.killed_at = max(steps)
            elif self.killed_at is not None:
                time.sleep(0.5)


def test_two_workers_take_equal_steps_and_score_every_test_row_once(unbroken: RunResult, log: Path) -> None:
    test = pq.read_table(log.parent / "test.parquet")
    state = unbroken.folder.state

    bundle = ModelBundle.load(unbroken.folder.bundle)
    again = evaluate_bundle(bundle, cache_dir=unbroken.folder.cache).report
    # Which rows experts are compared on depends on the workers.
    of_two, of_one = (
        {name: value for name, value in report.experts.items() if not name.endswith("/similarity")}
        for report in (unbroken.report, again)
        if report is not None
    )

    # What one process has found out is where the model of both has begun; the mean of an amount, which is the last
    # logit, is set once more when training is done.
    starts = [start.logit for start in RunFacts.read(unbroken.folder).starts]
    assert bundle.model.start_T[:-1].tolist() == pytest.approx(starts[:-1], rel=1e-6)
    assert (state["status"], state["world_size"], state["step"], state["num_steps"]) == (
        "finished",
        NUM_WORKERS,
        NUM_STEPS,
        NUM_STEPS,
    )
    assert unbroken.report is not None
    rows = {row.name: row for row in unbroken.report.rows}
    assert (rows["ctr.auc[all]"].num_rows, rows["ctr.auc[all]"].num_positive) == (600, pc.sum(test["click"]).as_py())
    assert unbroken.report.values() == pytest.approx(again.values(), rel=1e-4, abs=1e-5)
    assert of_two
    assert of_two == pytest.approx(of_one, rel=1e-4, abs=1e-5)


def test_workers_that_hold_some_of_the_experts_leave_a_bundle_with_all(
    log: Path, session: ExitStack, tmp_path: Path
) -> None:
    del session
    experts = "model.architecture={kind: mmoe, num_experts: 3, expert_hidden: [16], gate: {kind: top_k, k: 2}}"

    run = train(log, tmp_path / "run", "training.max_steps=20", "training.experts=over_workers", experts)

    assert (run.folder.state["status"], run.folder.state["world_size"]) == ("finished", NUM_WORKERS)
    again = evaluate_bundle(ModelBundle.load(run.folder.bundle), cache_dir=run.folder.cache).report
    assert run.report is not None
    assert run.report.values() == pytest.approx(again.values(), rel=1e-4, abs=1e-5)
    curves = [json.loads(line) for line in run.folder.metrics.read_text(encoding="utf-8").splitlines()]
    shares = [line["train/experts/travel_share"] for line in curves if "train/experts/travel_share" in line]
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)


def test_a_killed_worker_changes_no_number(unbroken: RunResult, log: Path, tmp_path: Path) -> None:
    killer = WorkerKiller(tmp_path / "run", step=NUM_STEPS // 2)
    killer.start()
    try:
        broken = train(log, tmp_path / "run")
    finally:
        killer.is_over.set()
        killer.join()

    assert killer.killed_at is not None
    assert killer.killed_at < NUM_STEPS
    assert len(killer.seen) == 2 * NUM_WORKERS
    assert broken.report is not None
    assert unbroken.report is not None
    assert broken.report.values() == unbroken.report.values()


def test_an_error_in_one_worker_is_the_error_of_the_run(
    unbroken: RunResult, log: Path, tmp_path: Path, session: ExitStack
) -> None:
    del unbroken, session
    path = tmp_path / "validation.parquet"
    path.write_bytes((log.parent / "validation.parquet").read_bytes())

    def change_and_train(config: ExperimentConfig, folder: RunFolder) -> None:
        """The last row, which belongs to the second worker, is changed after all rows have been checked."""
        rows = pq.read_table(path)
        clicks = [*rows["click"].to_pylist()[:-1], 2]
        pq.write_table(rows.set_column(rows.schema.get_field_index("click"), "click", [clicks]), path)
        train_on_ray(config, folder, num_workers=NUM_WORKERS)

    with pytest.raises(TrainingError, match=rf"^{path}, row 599 of the file: label column 'click' holds 2"):
        train(log, tmp_path / "run", f"data.validation=[{path}]", launch=change_and_train)

    assert not worker_processes()


def test_workers_that_could_never_be_placed_are_refused(unbroken: RunResult, log: Path, session: ExitStack) -> None:
    del session
    config = load_experiment(log, SMALL)

    with pytest.raises(TrainingError, match=r"200 CPUs are needed, one per worker, and Ray has [0-9]+; ask for fewer"):
        train_on_ray(config, unbroken.folder, num_workers=200)


class FailingTrainer:
    """Fails in ways that a healthy Ray does not."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.num_calls = 0

    def fit(self) -> None:
        self.num_calls += 1
        raise self.error


def test_workers_that_die_again_and_again_are_given_up(
    unbroken: RunResult, log: Path, session: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    del session
    trainer = FailingTrainer(RuntimeError("in two lines\nthe node went away"))
    monkeypatch.setattr("pipelines.train._trainer", lambda *_, **__: trainer)

    with pytest.raises(TrainingError, match=r"^the job was lost 4 times, last with: the node went away; what was"):
        train_on_ray(load_experiment(log, SMALL), unbroken.folder, num_workers=NUM_WORKERS)

    assert trainer.num_calls == 4


def test_workers_that_cannot_be_started_are_not_tried_again(
    unbroken: RunResult, log: Path, session: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    del session
    trainer = FailingTrainer(ControllerError(ImportError("no module named x")))
    monkeypatch.setattr("pipelines.train._trainer", lambda *_, **__: trainer)

    with pytest.raises(TrainingError, match=r"^Ray could not run the workers: .*no module named x; mend it and go on"):
        train_on_ray(load_experiment(log, SMALL), unbroken.folder, num_workers=NUM_WORKERS)

    assert trainer.num_calls == 1


def test_no_process_is_left_when_the_session_ends(session: ExitStack, others: set[psutil.Process]) -> None:
    processes = [child for child in psutil.Process().children(recursive=True) if child not in others]

    session.close()

    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
