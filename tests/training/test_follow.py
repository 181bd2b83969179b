import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from recmoe.runs.folder import RunFolder
from recmoe.training.follow import CurveFollower

TRAINING = {"train/ctr/loss": 0.5, "train/samples_per_s": 100.0, "train/data_wait_share": 0.1, "train/lr": 0.001}


class Passed:
    """What a tracker was given."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        self.points.append((step, dict(values)))

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.points]


def until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert is_so()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_lines_are_passed_on_and_the_last_ones_before_it_ends(folder: RunFolder) -> None:
    passed = Passed()

    with CurveFollower(folder.metrics, num_steps=lambda: 20, pass_on=passed, is_quiet=True):
        folder.log(10, TRAINING)
        folder.log(20, {"val/ctr.auc[all]": 0.75})

    assert passed.points == [(10, TRAINING), (20, {"val/ctr.auc[all]": 0.75})]


def test_what_an_earlier_process_wrote_is_not_passed_on_again(folder: RunFolder) -> None:
    folder.log(10, TRAINING)
    passed = Passed()

    with CurveFollower(folder.metrics, num_steps=lambda: 20, pass_on=passed, is_quiet=True):
        folder.log(20, TRAINING)

    assert passed.steps == [20]


def test_restarted_job_that_has_overtaken_the_old_one_is_passed_on_from_where_it_began(folder: RunFolder) -> None:
    passed = Passed()
    with CurveFollower(folder.metrics, num_steps=lambda: 60, pass_on=passed, is_quiet=True):
        for step in (10, 20, 30):
            folder.log(step, TRAINING)
        until(lambda: passed.steps == [10, 20, 30])

        # Back to the checkpoint of step 10, and faster than the follower looks.
        folder.forget_after(10)
        for step in (20, 30, 40, 50):
            folder.log(step, {**TRAINING, "train/samples_per_s": 200.0})

    assert passed.steps == [10, 20, 30, 20, 30, 40, 50]


def test_line_that_is_half_written_waits_for_its_end(folder: RunFolder) -> None:
    passed = Passed()
    with CurveFollower(folder.metrics, num_steps=lambda: 60, pass_on=passed, is_quiet=True):
        folder.log(10, TRAINING)
        with folder.metrics.open("a") as file:
            file.write('{"step": 20, ')
            file.flush()
            until(lambda: passed.steps == [10])
            file.write('"val/x": 1.0}\n')

    assert passed.points[1:] == [(20, {"val/x": 1.0})]


def test_run_without_curves_ends_in_peace(folder: RunFolder) -> None:
    passed = Passed()

    with CurveFollower(folder.metrics, num_steps=lambda: None, pass_on=passed):
        pass

    assert passed.points == []


def test_progress_is_shown_unless_quiet(folder: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    passed = Passed()

    with CurveFollower(folder.metrics, num_steps=lambda: 20, pass_on=passed):
        folder.log(20, TRAINING)
        folder.log(20, {"val/ctr.auc[all]": 0.75, "experts/level0/ctr/row_entropy": 0.5})
        folder.log(20, {"val/ctr.logloss[all]": 0.25, "experts/level0/ctr/row_entropy": 0.5})

    shown = capfd.readouterr().err.splitlines()
    assert shown == [
        "step 20/20 · 100 samples/s · loss ctr 0.5000 · data wait 10.0%",
        "step 20 · validation · ctr.auc[all] 0.7500",
        "step 20 · validation · ctr.logloss[all] 0.2500",
    ]
