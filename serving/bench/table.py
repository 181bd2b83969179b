"""bench_table: the loads of a run, one line each."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from serving.bench.bench import BenchResult, Measured

_ABSENT = "–"


def bench_table(result: BenchResult) -> Table:
    """Counts, rates and percentiles; times in milliseconds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("load", no_wrap=True)
    for header in ("due/s", "ranked/s", "candidates/s", "ok", "429"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("other")
    for header in ("p50", "p90", "p99", "max", "healthz p99", "own lag p99"):
        table.add_column(header, justify="right", no_wrap=True)
    for place, one in enumerate([*result.closed, *result.open]):
        if place == len(result.closed):
            table.add_section()
        table.add_row(*map(Text, _cells(one)))
    return table


def bench_notes(result: BenchResult) -> Iterator[str]:
    """What to know beside the table, one sentence each."""
    settings, checked = result.settings, result.checked
    source = f"rows of {', '.join(settings.data)}" if settings.data else "made-up values, whose ids no model knows"
    yield (
        f"{settings.candidates} candidates a request, {result.body_bytes:,} bytes, {settings.payloads} different ones "
        f"from {source}; times in ms, from when a request was due"
    )
    if result.saturation_per_s is not None:
        yield f"saturation: {result.saturation_per_s:,.1f} requests/s"
    other = f", {checked.num_other_version} of another version not compared" if checked.num_other_version else ""
    yield f"rankings compared with those at rest: {checked.num_equal} equal, {checked.num_wrong} wrong{other}"
    late = [one for one in result.open if one.is_generator_late]
    if late:
        names = ", ".join(_name(one) for one in late)
        yield (
            f"the generator itself was late at {names}: the server may be faster than measured; "
            "run it on another machine, or with more --processes"
        )
    failed = sum(one.num_health_failures for one in [*result.closed, *result.open])
    if failed:
        yield f"/healthz failed {failed} times"


def _name(one: Measured) -> str:
    if one.connections is not None:
        return f"{one.connections} connection{'s' if one.connections > 1 else ''}"
    return f"{one.share:.0%}" if one.share is not None else f"{one.rate:,.0f}/s"


def _cells(one: Measured) -> list[str]:
    times = one.latency_ms
    return [
        _name(one),
        _ABSENT if one.rate is None else f"{one.rate:,.1f}",
        f"{one.ok_per_s:,.1f}",
        f"{one.candidates_per_s:,.0f}",
        f"{one.num_ok:,}",
        f"{one.num_refused:,}",
        ", ".join(f"{name} {count:,}" for name, count in sorted(one.other.items())) or "0",
        *(_ms(value) for value in (times.p50, times.p90, times.p99, times.max, one.health_ms.p99, one.lag_ms.p99)),
    ]


def _ms(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:,.1f}"
