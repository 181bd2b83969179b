"""Training speed of recmoe, of its peers and of the machine itself, in one run on the same Parquet files.

    python -m benchmarks.training                                   about 25 minutes on two cores
    python -m benchmarks.training --epoch recmoe,fuxictr            and the test AUC after a full epoch of these
    python -m benchmarks.training --only recmoe --models mmoe --steps 100

What is missing is made first: the log, and an environment for each peer. What has been measured is kept in
results.json and not measured again, so a run that was cut off goes on with the same command.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.environments import PEERS, peer_python
from benchmarks.limit import work_of
from benchmarks.log import FLOAT_COLUMNS, ID_COLUMNS, LABELS, NUM_IDS, TRUTH, write_log
from benchmarks.options import Options, read_options
from benchmarks.peers.job import Job
from benchmarks.plot import draw
from benchmarks.processes import run_measured
from benchmarks.results import OURS, Measurement, Results
from benchmarks.table import markdown, ratio_lines
from recmoe.cli.output import print_columns
from recmoe.errors import ConfigError, RecmoeError
from recmoe.products import has_fast_bf16

ROOT = Path(__file__).parent.parent
PRECISIONS = {OURS: ("bf16", "fp32"), **dict.fromkeys(PEERS, ("shipped", "tuned"))}
"""No peer here has mixed precision of its own; the switch of ``tuned`` is the one that torch has for everybody."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""How threads wait at barriers. recmoe sets it for its own process, this one too; peers as shipped leave it alone."""
BEST_WAITING = {"GOMP_SPINCOUNT": "3000"}
"""Turns before a thread sleeps: measured as fast as waiting busily, and what else the machine does then costs a share
of a step instead of making it several times longer."""
EPOCH_PRECISIONS = {OURS: ("bf16", "fp32"), **dict.fromkeys(PEERS, ("tuned",))}
"""The switch leaves a peer's float32 results as accurate, so its AUC is measured with it."""
DEFAULT_STEPS = {OURS: 400, **dict.fromkeys(PEERS, 80)}
"""Optimizer steps of a speed run, so that each takes less than a minute on two cores."""


def main() -> None:
    """Measure everything that was asked for."""
    # Participants are in process groups of their own, so that they would outlive a plain end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))
    try:
        failures = run(read_options(sys.argv[1:], about=__doc__))
    except RecmoeError as error:
        sys.exit(f"error: {error}")
    if failures:
        sys.exit("\n".join(["not measured:", *failures]))


def run(options: Options) -> list[str]:
    """Make what is missing, measure, write table and plot; what failed, in words."""
    options = _possible(options)
    options.to.mkdir(parents=True, exist_ok=True)
    path = options.to / "results.json"
    results = Results(options.settings) if options.is_fresh else Results.load(path, options.settings)
    _make_log(options)
    todo = [one for one in _wanted(options) if not results.has(one.key, one.num_steps)]
    pythons = {name: _python(name, options) for name in dict.fromkeys(one.participant for one in todo)}
    for model in options.models:
        results.work[model] = work_of(_job(options, Measurement(OURS, model, "bf16", "speed", 0, 1, {})))
    if todo:
        _measure_machine(options, results)
    failures = []
    for place, measurement in enumerate(todo, 1):
        print(f"[{place}/{len(todo)}] {_title(measurement)}", flush=True)
        try:
            values = _measure(options, measurement, pythons[measurement.participant])
        except RecmoeError as error:
            failures.append(f"{_title(measurement)}: {error}")
            print(f"    failed: {error}", flush=True)
            continue
        print(f"    {_summary(values)}", flush=True)
        results.add(Measurement(**{**vars(measurement), "values": values}))
        results.save(path)
        _write(options, results)
    if todo:
        _measure_machine(options, results)
    results.save(path)
    _write(options, results)
    _print(options, results)
    return failures


def _possible(options: Options) -> Options:
    """What can be measured on the device."""
    if "bf16" not in options.switches or has_fast_bf16(torch.device(options.device)):
        return options
    print(f"bf16 is left out: this {options.device} has no bf16 arithmetic", flush=True)
    return replace(options, switches=tuple(switch for switch in options.switches if switch != "bf16"))


def _wanted(options: Options) -> Iterator[Measurement]:
    """Rounds go through all participants in turn, so that what else the machine does hits all of them."""
    for number in range(options.num_rounds):
        for model in options.models:
            for name in options.only:
                num_steps = options.num_steps or DEFAULT_STEPS[name]
                for precision in _switches(options, PRECISIONS[name]):
                    yield Measurement(name, model, precision, "speed", number, num_steps, {})
    for seed in options.seeds:
        for model in options.models:
            for name in options.epoch:
                for precision in _switches(options, EPOCH_PRECISIONS[name]):
                    yield Measurement(name, model, precision, "epoch", seed, None, {})


def _switches(options: Options, known: tuple[str, ...]) -> list[str]:
    return [precision for precision in known if precision in options.switches]


def _measure(options: Options, measurement: Measurement, python: Path) -> dict[str, Any]:
    """Run one participant once, in a process of its own."""
    job = _job(options, measurement)
    Path(job.cache).mkdir(parents=True, exist_ok=True)
    result = Path(job.result)
    result.unlink(missing_ok=True)
    path = result.with_suffix(".job.json")
    job.save(path)
    name = measurement.participant
    module = "benchmarks.recmoe_runner" if name == OURS else f"benchmarks.peers.run_{name.replace('-', '_')}"
    started_s = time.perf_counter()
    helpers_gib = run_measured(
        [str(python), "-m", module, str(path)],
        output=result.with_suffix(".txt"),
        env=_environment(job.precision),
        timeout_s=options.timeout_s,
    )
    values: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return values | {"helpers_gib": helpers_gib, "wall_s": time.perf_counter() - started_s}


def _environment(precision: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in WAITING}
    return inherited | {"PYTHONPATH": str(ROOT)} | (BEST_WAITING if precision != "shipped" else {})


def _job(options: Options, measurement: Measurement) -> Job:
    name = "-".join(measurement.key)
    is_speed = measurement.purpose == "speed"
    return Job(
        log=str(options.log.resolve()),
        num_ids=dict(zip(ID_COLUMNS, NUM_IDS, strict=True)),
        floats=FLOAT_COLUMNS,
        labels=LABELS,
        model=measurement.model,  # type: ignore[arg-type]
        precision=measurement.precision,
        result=str((options.to / "runs" / f"{name}.json").resolve()),
        cache=str((options.to / "runs" / measurement.participant).resolve()),
        batch_size=options.batch_size,
        num_steps=measurement.num_steps,
        num_ready_steps=options.num_ready_steps if is_speed else 0,
        device=options.device,
        seed=0 if is_speed else measurement.number,
    )


def _make_log(options: Options) -> None:
    truth = options.log / TRUTH
    if truth.exists():
        found = json.loads(truth.read_text(encoding="utf-8"))
        if (found["num_rows"], found["seed"]) != (options.num_rows, options.log_seed):
            raise ConfigError(
                f"--log {options.log} holds {found['num_rows']:,} rows of seed {found['seed']}, not "
                f"{options.num_rows:,} of seed {options.log_seed}; choose another --log, or remove it"
            )
    else:
        print(f"making the log of {options.num_rows:,} rows in {options.log}", flush=True)
        found = write_log(options.log, num_rows=options.num_rows, seed=options.log_seed)
    print(f"log: the true probabilities reach a test AUC of {found['click_auc']:.4f} click, "
          f"{found['conversion_auc']:.4f} conversion", flush=True)  # fmt: skip


def _python(name: str, options: Options) -> Path:
    if name == OURS:
        return Path(sys.executable)
    print(f"environment of {name}", flush=True)
    return peer_python(name, options.venvs)


def _measure_machine(options: Options, results: Results) -> None:
    """In a process of its own: torch keeps its threads."""
    print("measuring the machine", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.limit", options.device],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"the machine could not be measured on --device {options.device}: {done.stderr[-400:]}")
    results.rates.append(json.loads(done.stdout))


def _title(measurement: Measurement) -> str:
    what = "round" if measurement.purpose == "speed" else "a full epoch, seed"
    return f"{measurement.model}  {measurement.participant}, {measurement.precision}, {what} {measurement.number}"


def _summary(values: dict[str, Any]) -> str:
    parts = [f"{values['samples_per_s']:,.0f} samples/s"]
    if values.get("ready_samples_per_s"):
        parts.append(f"{values['ready_samples_per_s']:,.0f} on ready batches")
    if values.get("wait_share") is not None:
        parts.append(f"{values['wait_share']:.1%} data wait")
    parts += [f"AUC {task} {auc:.4f}" for task, auc in values.get("auc", {}).items()]
    return ", ".join([*parts, f"{values['peak_gib']:.1f} GiB", f"{values['wall_s']:.0f} s in all"])


def _write(options: Options, results: Results) -> None:
    (options.to / "training.md").write_text(markdown(results), encoding="utf-8")
    draw(results, options.to / "training.png")


def _print(options: Options, results: Results) -> None:
    rows = [(row.model, row.participant, row.precision, round(row.samples_per_s),
             " / ".join(f"{row.mean_auc(task):.4f}" for task in row.auc)) for row in results.rows()]  # fmt: skip
    if rows:
        print_columns(("model", "participant", "switch", "samples/s", "test AUC"), rows)
    print("\n".join(ratio_lines(results)))
    print(f"written: {options.to}/training.md, training.png, results.json")


if __name__ == "__main__":
    main()
