"""The results as Markdown: participants, machine, and the ratios that matter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.limit import best_rates, limit_samples_per_s
from benchmarks.results import OURS, Results, Row, fastest

HEADERS = (
    "model", "participant", "switch", "samples/s, reading included", "on ready batches", "data wait",
    "memory GiB (+ loader)", "prepare s", "test AUC click / conversion",
)  # fmt: skip


@dataclass(frozen=True)
class Ratios:
    """How recmoe stands in one model; None where something was not measured."""

    model: str
    over_shipped: float | None
    """Times the samples per second of the fastest peer as shipped."""
    over_tuned: float | None
    """Times those of the fastest peer with its best switch."""
    share_of_bf16: float | None
    """Of the limit that the measured bf16 matrix rate sets."""
    share_of_fp32: float | None
    """Of the limit of float32 through the faster library."""
    auc_over_peers: dict[str, float]
    """By task, recmoe's fastest precision less the best peer."""
    auc_bf16_over_fp32: dict[str, float]
    """By task."""


def ratios(results: Results) -> list[Ratios]:
    """One per model that recmoe was measured in."""
    rows = results.rows()
    return [_ratios(model, [row for row in rows if row.model == model], results) for model in _models(rows)]


def _ratios(model: str, rows: Sequence[Row], results: Results) -> Ratios:
    rows = list(rows)
    mine = {row.precision: row for row in rows if row.participant == OURS}
    peers = [row for row in rows if row.participant != OURS]
    best = fastest(mine.values())
    shipped = fastest(row for row in peers if row.precision == "shipped")
    tuned = fastest(peers)
    tasks = dict.fromkeys(task for row in rows for task in row.auc)
    return Ratios(
        model=model,
        over_shipped=best.samples_per_s / shipped.samples_per_s if best and shipped else None,
        over_tuned=best.samples_per_s / tuned.samples_per_s if best and tuned else None,
        share_of_bf16=_share(results, mine.get("bf16")),
        share_of_fp32=_share(results, mine.get("fp32")),
        auc_over_peers=dict(_gaps(tasks, [best] if best else [], peers)),
        auc_bf16_over_fp32=dict(
            _gaps(tasks, [mine["bf16"]] if "bf16" in mine else [], [mine["fp32"]] if "fp32" in mine else [])
        ),
    )


def _share(results: Results, row: Row | None) -> float | None:
    if row is None or not results.rates or row.model not in results.work:
        return None
    limit = limit_samples_per_s(results.work[row.model], best_rates(results.rates), row.precision)
    return row.samples_per_s / limit


def _gaps(tasks: dict[str, None], rows: Sequence[Row], others: Sequence[Row]) -> Iterator[tuple[str, float]]:
    for task in tasks:
        high = max((auc for row in rows if (auc := row.mean_auc(task)) is not None), default=None)
        other = max((auc for row in others if (auc := row.mean_auc(task)) is not None), default=None)
        if high is not None and other is not None:
            yield task, high - other


def markdown(results: Results) -> str:
    """The whole page."""
    parts = [f"Training, {', '.join(f'{name} {value}' for name, value in results.settings.items())}\n"]
    parts.append(_table(HEADERS, [_cells(row) for row in results.rows()]))
    if results.rates:
        parts += [_machine(results), _work(results)]
    parts.append("\n".join(ratio_lines(results)) + "\n")
    return "\n".join(parts)


def ratio_lines(results: Results) -> list[str]:
    """One line per ratio and model, such as ``mmoe: 6.3 x the fastest peer as shipped``."""
    lines = []
    for one in ratios(results):
        texts = [
            one.over_shipped and f"{one.over_shipped:.2f} x the fastest peer as shipped",
            one.over_tuned and f"{one.over_tuned:.2f} x the fastest peer with its best switch",
            one.share_of_bf16 and f"{one.share_of_bf16:.0%} of the bf16 limit",
            one.share_of_fp32 and f"{one.share_of_fp32:.0%} of the fp32 limit (in fp32)",
        ]
        texts += [f"test AUC {task} {gap:+.4f} over the best peer" for task, gap in one.auc_over_peers.items()]
        texts += [f"test AUC {task} {gap:+.4f} in bf16 over fp32" for task, gap in one.auc_bf16_over_fp32.items()]
        lines += [f"- {one.model}: {text}" for text in texts if text]
    return lines


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        row.participant,
        row.precision,
        f"{row.samples_per_s:,.0f}",
        "" if row.ready_samples_per_s is None else f"{row.ready_samples_per_s:,.0f}",
        "" if row.wait_share is None else f"{row.wait_share:.1%}",
        f"{row.peak_gib:.1f}" + (f" + {row.helpers_gib:.1f}" if row.helpers_gib else ""),
        f"{row.prepare_s:.0f}",
        " / ".join(auc_text(values) for values in row.auc.values()),
    ]


def auc_text(values: Sequence[float]) -> str:
    """Mean over the seeds, and half their range where there are several."""
    text = f"{sum(values) / len(values):.4f}"
    return text if len(values) == 1 else f"{text} ± {(max(values) - min(values)) / 2:.4f}"


def _machine(results: Results) -> str:
    rates = best_rates(results.rates)
    rows = [
        ["fp32 matrix products as torch ships them", f"{rates.fp32_flops_per_s / 1e9:,.0f} GFLOP/s"],
        ['fp32 with set_float32_matmul_precision("medium")', f"{rates.fp32_fast_flops_per_s / 1e9:,.0f} GFLOP/s"],
        ["bf16 matrix products", f"{rates.bf16_flops_per_s / 1e9:,.0f} GFLOP/s"],
        ["copy, read and written", f"{rates.copy_bytes_per_s / 1e9:.1f} GB/s"],
        ["random rows of 64 bytes, Zipf ids", f"{rates.random_row_bytes_per_s / 1e9:.1f} GB/s"],
    ]
    return _table((f"machine: {rates.device}", f"best of {len(results.rates)}"), rows)


def _work(results: Results) -> str:
    rates = best_rates(results.rates)
    headers = ("model", "GFLOP per step", "table MB per step", "limit fp32", "limit bf16", "tables alone, ms")
    rows = []
    for model, work in results.work.items():
        table_bytes = work["lookup_bytes"] + work["update_bytes"]
        rows.append(
            [
                model,
                f"{work['flops'] / 1e9:.1f}",
                f"{table_bytes / 1e6:.1f}",
                f"{limit_samples_per_s(work, rates, 'fp32'):,.0f}",
                f"{limit_samples_per_s(work, rates, 'bf16'):,.0f}",
                f"{1000 * table_bytes / rates.random_row_bytes_per_s:.1f}",
            ]
        )
    return _table(headers, rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of numbers stand right."""
    is_number = [all(row[column][:1].isdigit() or not row[column] for row in rows) for column in range(len(headers))]
    lines = [headers, ["--:" if right else "---" for right in is_number], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _models(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows if row.participant == OURS))
