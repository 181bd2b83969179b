"""The command of the training benchmark: options, refusals, the clock, and recmoe measured for real on a tiny log."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks.limit import work_of
from benchmarks.log import FLOAT_COLUMNS, ID_COLUMNS, LABELS, NUM_IDS, write_log
from benchmarks.options import read_options
from benchmarks.peers.job import Job, Sizes, StepMeter, ready_batches
from benchmarks.processes import run_measured
from benchmarks.recmoe_runner import experiment, measure
from benchmarks.training import _environment, _possible, run
from recmoe.errors import ConfigError, TrainingError
from recmoe.features.kinds import NumericFeature


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_log(folder, num_rows=3000)
    return folder


def job_of(log: Path, folder: Path, model: str = "mmoe") -> Job:
    return Job(
        log=str(log),
        num_ids=dict(zip(ID_COLUMNS, NUM_IDS, strict=True)),
        floats=FLOAT_COLUMNS,
        labels=LABELS,
        model=model,  # type: ignore[arg-type]
        precision="fp32",
        result=str(folder / "result.json"),
        cache=str(folder),
        sizes=Sizes(width=8),
    )


def input_width(job: Job) -> int:
    """Floats that enter the first level: table rows, numbers, and rows of the numbers' buckets."""
    schema = experiment(job).inputs
    width = 0
    for feature in schema.features.values():
        if isinstance(feature, NumericFeature):
            forms = {"value": 1, "bucket": feature.width or schema.width}
            width += sum(forms[form] for form in feature.forms)
        else:
            width += feature.width or schema.width
    return width


def test_job_survives_its_file(tmp_path: Path) -> None:
    job = job_of(tmp_path, tmp_path)

    job.save(tmp_path / "job.json")

    assert Job.load(tmp_path / "job.json") == job


def test_work_of_a_step_is_that_of_the_published_sizes(tmp_path: Path, log: Path) -> None:
    width = input_width(job_of(log, tmp_path))

    flops = {model: work_of(job_of(log, tmp_path, model))["flops"] for model in ("mmoe", "ple")}

    # Per row: experts [256, 128], gates, weighted sums, towers [64]; three passes of 2 operations each, 4096 rows.
    towers = 2 * (128 * 64 + 64)
    mmoe = 8 * (width * 256 + 256 * 128) + 2 * 8 * (width + 128) + towers
    # Six experts per level; both gates of the tasks see four of them, the shared one, at the first level, six.
    ple = 6 * (width * 256 + 256 * 128) + 14 * (width + 128) + 6 * (128 * 256 + 256 * 128) + 8 * (128 + 128) + towers
    assert flops["mmoe"] == pytest.approx(6 * 4096 * mmoe, rel=1e-3)
    assert flops["ple"] == pytest.approx(6 * 4096 * ple, rel=1e-3)


def test_meter_counts_the_steps_of_any_loop_and_ends_it() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    num_done = 0

    with StepMeter(batch_size=10, max_steps=5) as meter:
        for _ in range(100):
            weight.grad = torch.ones(2)
            optimizer.step()
            num_done += 1

    assert (meter.num_steps, num_done) == (5, 4)
    assert meter.samples_per_s > 0
    assert meter.peak_gib > 0


def test_meter_without_steps_has_no_speed() -> None:
    with StepMeter(batch_size=10) as meter:
        pass

    with pytest.raises(RuntimeError, match="0 optimizer steps were seen, more than 3 are needed"):
        assert meter.samples_per_s


def test_meter_lets_errors_of_the_loop_through() -> None:
    with pytest.raises(ZeroDivisionError), StepMeter(batch_size=10):
        assert 1 / 0


def test_ready_batches_are_gone_through_in_turn() -> None:
    assert ready_batches([1, 2, 3], num_steps=5) == [1, 2, 3, 1, 2]
    assert set(ready_batches(range(100), num_steps=20)) == set(range(8))


def test_failed_participant_is_told_with_its_last_lines(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"

    with pytest.raises(TrainingError, match=r"failed, see .*out\.txt: oh no"):
        run_measured([sys.executable, "-c", "import sys; print('oh no'); sys.exit(3)"], output=output, env=os.environ)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_is_measured_where_the_device_has_it(
    has_bf16: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.training.has_fast_bf16", lambda _: has_bf16)

    options = _possible(read_options([]))

    assert ("bf16" in options.switches) == has_bf16
    assert ("bf16 is left out: this cpu has no bf16 arithmetic" in capsys.readouterr().out) != has_bf16


def test_peer_as_shipped_does_not_inherit_how_threads_wait_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")

    shipped, tuned = _environment("shipped"), _environment("tuned")

    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(shipped)
    assert set(tuned) - set(shipped) == {"GOMP_SPINCOUNT"}


def test_participant_that_hangs_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]

    with pytest.raises(TrainingError, match="was stopped after 0 s"):
        run_measured(command, output=tmp_path / "out.txt", env=os.environ, timeout_s=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "recmoe,tensorflow"], "--only: there is no 'tensorflow'; choose from recmoe, torch-rechub"),
        (["--models", "dlrm"], "--models: there is no 'dlrm'; choose from mmoe, ple"),
        (["--switches", "fp16"], "--switches: there is no 'fp16'; choose from bf16, fp32, shipped, tuned"),
        (["--epoch", "x"], "--epoch: there is no 'x'"),
        (["--steps", "3"], "--steps must be at least 5, for the first 3 are not timed; got 3"),
        (["--rounds", "-1"], "--rounds must be at least 0, got -1"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--ready-steps", "-1"], "--ready-steps must be at least 0, got -1"),
        (["--seeds", "a"], "--seeds must be whole numbers such as 0,1,2, got 'a'"),
    ],
)
def test_wrong_option_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options(arguments)


def test_log_of_another_size_is_refused(tmp_path: Path, log: Path) -> None:
    options = read_options(["--log", str(log), "--rows", "4000", "--to", str(tmp_path)])

    with pytest.raises(ConfigError, match="holds 3,000 rows of seed 0, not 4,000 of seed 0; choose another --log"):
        run(options)


def test_recmoe_answers_with_speed_memory_and_auc(tmp_path: Path, log: Path) -> None:
    job = replace(job_of(log, tmp_path), batch_size=128, num_ready_steps=2)

    measure(job)

    answer = json.loads((tmp_path / "result.json").read_text())
    assert answer["num_steps"] == 2550 // 128
    assert set(answer["auc"]) == {"click", "conversion"}
    assert all(answer[name] > 0 for name in ("samples_per_s", "ready_samples_per_s", "peak_gib", "prepare_s"))
    assert 0 <= answer["wait_share"] < 1


@pytest.mark.slow
def test_what_is_measured_once_is_remembered(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--log", str(log), "--rows", "3000", "--to", str(tmp_path), "--only", "recmoe", "--models", "mmoe"]
    arguments += ["--switches", "fp32", "--batch-size", "128", "--steps", "5", "--ready-steps", "0", "--rounds", "1"]

    failures = run(read_options(arguments))
    first = capsys.readouterr().out
    again = run(read_options(arguments))
    second = capsys.readouterr().out

    assert failures == again == []
    assert "[1/1] mmoe  recmoe, fp32, round 0" in first
    assert "round 0" not in second
    results = json.loads((tmp_path / "results.json").read_text())
    assert [one["values"]["num_steps"] for one in results["measurements"]] == [5]
    assert len(results["rates"]) == 2
    assert "of the fp32 limit" in (tmp_path / "training.md").read_text()
    assert (tmp_path / "training.png").exists()


@pytest.mark.slow
def test_benchmark_that_is_ended_takes_its_participant_along(tmp_path: Path, log: Path) -> None:
    arguments = ["--log", str(log), "--rows", "3000", "--to", str(tmp_path), "--only", "recmoe", "--models", "mmoe"]
    arguments += ["--switches", "fp32", "--batch-size", "128", "--steps", "1000000"]
    output = tmp_path / "runs" / "mmoe-recmoe-fp32-speed-0.txt"
    command = [sys.executable, "-m", "benchmarks.training", *arguments]

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as benchmark:
        while not (output.exists() and (participants := psutil.Process(benchmark.pid).children())):
            assert benchmark.poll() is None
            time.sleep(0.1)
        (participant,) = participants
        benchmark.terminate()
        _, errors = benchmark.communicate(timeout=60)

    assert "stopped; the same command goes on" in errors
    assert not participant.is_running()
