"""``recmoe plan``: placement, bytes and step time on machines that need not exist."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recmoe.cli.options import Json, Overrides
from recmoe.cli.output import print_columns, print_json
from recmoe.errors import ConfigError
from recmoe.runs.source import RUNS

if TYPE_CHECKING:
    from recmoe.planning.costs import MachineCosts
    from recmoe.planning.job import JobPlan
    from recmoe.planning.topology import Topology

GB = 1e9
RATES = RUNS / "rates.json"


def plan(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="YAML file of the experiment.")] = None,
    overrides: Overrides = None,
    topology: Annotated[
        Path | None, typer.Option(help="YAML file of the machines; this machine by default.", dir_okay=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers on this machine; 1 by default.")] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=N", help="Different ids of a table; repeatable. With all of them no log is read."),
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Floats per table row; inputs.width of the config.")] = None,
    ids_per_row: Annotated[
        list[str] | None, typer.Option(metavar="LIST=N", help="Ids per row of an id_list feature; 10 by default.")
    ] = None,
    zipf: Annotated[float, typer.Option(min=0.0, help="Exponent of the popularity of ids; 0 is even.")] = 1.1,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run whose vocabularies to plan for, in place of the log's.", file_okay=False)
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine first; takes a minute.")] = False,
    rates: Annotated[Path, typer.Option(help="File of what this machine was measured to do.", dir_okay=False)] = RATES,
    as_json: Json = False,
) -> None:
    """Show where every embedding table would go, bytes per worker, the time of a step and what bounds it.

    Nothing is started, and none of the machines need exist: --topology describes them, --rows the tables.
    """
    measured = _measured(rates, measure=measure)
    if config is None:
        if measured is None or not measure:
            raise ConfigError("give the YAML file of an experiment, or --measure")
        print_json(measured.model_dump(mode="json")) if as_json else _print_rates(measured, rates)
        return
    from recmoe.experiment import load_experiment
    from recmoe.runs.plan import plan_run

    experiment = load_experiment(config, [*(overrides or []), *([f"inputs.width={width}"] if width else [])])
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        found = plan_run(
            experiment,
            topology=_machines(topology, workers, experiment.training.device),
            cache_dir=Path(folder),
            rows={name: round(count) for name, count in _counts(rows, "--rows").items()},
            given_ids_per_row=_counts(ids_per_row, "--ids-per-row"),
            run_dir=run_dir,
            measured=measured,
            zipf=zipf,
        )
    if as_json:
        print_json(found.to_json())
    else:
        _print_plan(found)


def _machines(path: Path | None, workers: int | None, device: Literal["auto", "cpu", "cuda"]) -> "Topology":
    from recmoe.planning.topology import load_topology
    from recmoe.runs.plan import this_machine

    if path is None:
        return this_machine(device, num_workers=workers or 1)
    if workers is not None:
        raise ConfigError("--workers is for this machine; a topology file says nodes and devices_per_node")
    return load_topology(path)


def _measured(path: Path, *, measure: bool) -> "MachineCosts | None":
    from recmoe.planning.costs import MachineCosts

    if measure:
        from recmoe.planning.measure import measure_machine

        found = measure_machine()
        found.save(path)
        return found
    if path.exists():
        return MachineCosts.load(path)
    if path != RATES:
        raise ConfigError(f"{path}: there is no such file; make it with: recmoe plan --measure --rates {path}")
    return None


def _counts(texts: list[str] | None, option: str) -> dict[str, float]:
    """Numbers by name, from texts like item_id=10_000_000 and user_id=2e9."""
    counts = {}
    for text in texts or []:
        name, _, number = text.rpartition("=")
        try:
            count = float(number)
        except ValueError:
            count = 0.0
        if not name or not 0 < count < float("inf"):
            raise ConfigError(f"{option} {text}: a name and a number above zero are needed, such as user_id=2e9")
        counts[name] = count
    return counts


def _print_plan(plan: "JobPlan") -> None:
    machines, num = plan.topology, plan.topology.world_size
    unit, size = ("GB", 1e9) if plan.num_bytes > 1e10 else ("MB", 1e6)
    print_columns(
        ["table", "rows", "width", "sharding", "workers", unit, f"state {unit}", "ids of busiest"],
        [
            (row["table"], row["rows"], row["width"], row["sharding"], _ranges(row["ranks"]), row["bytes"] / size,
             row["state_bytes"] / size, f"{row['largest_share_of_ids']:.1%}")
            for row in plan.tables
        ],
    )  # fmt: skip
    print(
        f"\n{plan.backend} tables: {plan.num_bytes / size:,.2f} {unit} of weights on {num} {machines.device} "
        f"worker{'s' if num > 1 else ''} ({machines.nodes} × {machines.devices_per_node}); "
        f"{plan.work.num_dense_parameters:,} dense parameters on each\n"
    )
    held = plan.work.counts.num_expert_parameters
    if held:
        print(
            f"experts over workers: {max(held):,} of {sum(held):,} expert parameters on the worker with most; a worker "
            f"sends {plan.sent_bytes / 1e6:,.2f} MB of rows and gradients to experts of others and back in a step\n"
        )
    kinds = [*plan.bytes_by_kind.items(), ("total", plan.bytes_R)]
    print_columns(
        [f"{unit} per worker", "mean", "max", "of memory"],
        [
            (name, float(values_R.mean()) / size, float(values_R.max()) / size,
             f"{float(values_R.max()) / GB / machines.memory_gb:.1%}")
            for name, values_R in kinds
        ],
    )  # fmt: skip
    print()
    if plan.estimate is None:
        print("step time: not known for this machine; measure it with: recmoe plan --measure")
    else:
        _print_step(plan)
    for warning in plan.warnings:
        print(f"warning: {warning}")
    for assumption in plan.assumptions:
        print(f"assumed  {assumption}")


def _print_step(plan: "JobPlan") -> None:
    found = plan.estimate
    assert found is not None
    print_columns(
        ["part of a step", "ms", "share"],
        [
            *((part, found.parts[part] * 1e3, f"{share:.0%}") for part, share in found.bounds),
            *((f"{part}, beside others", seconds * 1e3, "") for part, seconds in found.hidden.items()),
        ],
    )
    told = ", ".join(f"{part} {share:.0%}" for part, share in found.bounds[:3])
    print(
        f"\nstep of {plan.work.batch_size:,} rows per worker: {found.step_s * 1e3:,.2f} ms, bound by {told}; "
        f"{found.samples_per_s:,.0f} samples/s; {plan.work.flops / 1e9:,.1f} GFLOP per worker"
    )


def _print_rates(measured: "MachineCosts", path: Path) -> None:
    rates = measured.rates
    print_columns(
        [rates.device, "limit", "reached in a step"],
        [
            ("fp32 GFLOP/s, as torch ships it", rates.fp32_flops_per_s / GB, ""),
            ("fp32 GFLOP/s, the faster library", rates.fp32_fast_flops_per_s / GB,
             f"{measured.fp32.matrix_flops_per_s / GB:.1f}"),
            ("bf16 GFLOP/s", rates.bf16_flops_per_s / GB,
             f"{measured.bf16.matrix_flops_per_s / GB:.1f}" if measured.bf16 else ""),
            ("copy GB/s", rates.copy_bytes_per_s / GB, ""),
            ("random rows GB/s", rates.random_row_bytes_per_s / GB, f"{measured.fp32.row_bytes_per_s / GB:.1f}"),
        ],
    )  # fmt: skip
    print(f"\nwrote {path}")


def _ranges(ranks: list[int]) -> str:
    """0-127 for many in a row, else the numbers."""
    if len(ranks) > 2 and ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]}-{ranks[-1]}"
    return ", ".join(map(str, ranks))
