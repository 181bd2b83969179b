"""The comparison as Markdown: everything, and a short table for the README."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.comparison.logs import BEST
from benchmarks.comparison.rows import WORDS, Cell, Row
from benchmarks.comparison.variants import ARCHITECTURES, REFERENCES, trial_name
from recmoe.evaluation.baselines import Estimate
from recmoe.evaluation.metrics import metric_best

PLOT = "architectures.png"


@dataclass(frozen=True)
class Compared:
    """One log, as far as its trainings are done."""

    log: str
    metrics: Sequence[str]
    """The first one is shown where there is room for one."""
    rows: Sequence[Row]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a variant has no row, by its name."""

    def of(self, name: str) -> Row | None:
        """A row by name."""
        return next((row for row in self.rows if row.name == name), None)


def whole_page(compared: Sequence[Compared], *, about: Sequence[str]) -> str:
    """Everything that was measured.

    Args:
        about: how it was measured, a paragraph each.
    """
    parts = [
        "# Architectures compared\n",
        *(f"{paragraph}\n" for paragraph in about),
        f"![quality against work]({PLOT})\n",
    ]
    for one in compared:
        parts += [f"## {one.log}\n", *_of_log(one)]
    parts += ["## In words\n", "\n".join(word_lines(compared)) + "\n"]
    return "\n".join(parts)


def short_table(compared: Sequence[Compared]) -> str:
    """A row per kind of architecture and whatever else has no variants; the first metric of each log."""
    names = dict.fromkeys(row.name for one in compared for row in one.rows if ":" not in row.name)
    headers = ["", *(f"{one.log} `{one.metrics[0]}`" for one in compared)]
    lines = [[_title(name), *(_short(one, name) for one in compared)] for name in names]
    return _table(headers, lines)


def word_lines(compared: Sequence[Compared]) -> Iterator[str]:
    """What each model is, set beside each reference, number by number."""
    names = dict.fromkeys(row.name for one in compared for row in one.rows if row.num_seeds)
    for name in names:
        for reference in REFERENCES:
            by_word: dict[str, list[str]] = {word: [] for word in WORDS.values()}
            for one in compared:
                row = one.of(name)
                for metric, cell in row.cells.items() if row else ():
                    if reference in cell.against:
                        by_word[cell.against[reference].word].append(f"{one.log} `{metric}`")
            parts = [f"{word} in {_listed(found, word)}" for word, found in by_word.items() if found]
            if parts:
                yield f"- **{_title(name)}**, beside {_title(reference)}: {'; '.join(parts)}."


def _listed(found: Sequence[str], word: str) -> str:
    """Where there is no difference, how often is enough."""
    return f"{len(found)} of the numbers" if word == "no difference" else ", ".join(found)


def _of_log(one: Compared) -> Iterator[str]:
    trained = [row for row in one.rows if row.sizes is not None]
    yield _table(
        ("model", "chosen trial", "seeds", "parameters", "active for a row", "in tables", "kFLOP per row", "samples/s"),
        [
            [
                _title(row.name), "" if row.trial is None else trial_name(row.trial), str(row.num_seeds),
                f"{row.sizes.parameters:,}", f"{row.sizes.active:,.0f}", f"{row.sizes.table_parameters:,}",
                f"{row.sizes.flops / 1000:,.1f}", "" if row.samples_per_s is None else f"{row.samples_per_s:,.0f}",
            ]
            for row in trained
            if row.sizes is not None
        ],
    )  # fmt: skip
    for metric in one.metrics:
        rows = [row for row in one.rows if metric in row.cells and row.cells[metric].estimate.value is not None]
        is_highest_best = metric_best(metric) == "highest"
        rows.sort(key=lambda row: row.cells[metric].estimate.value or 0.0, reverse=is_highest_best)
        headers = (f"`{metric}`", "95 % of test rows", "± seeds", *(f"beside {_title(name)}" for name in REFERENCES))
        yield _table(("model", *headers), [_metric_line(row, row.cells[metric]) for row in rows])
        yield from _reached(rows, metric)
    for name, reason in one.left_out.items():
        yield f"{_title(name)} is left out: {reason}\n"


def _metric_line(row: Row, cell: Cell) -> list[str]:
    line = [_title(row.name), _number(cell.estimate.value), _interval(cell.estimate)]
    line.append(_number(cell.spread) if row.num_seeds > 1 else "")
    for reference in REFERENCES:
        difference = cell.against.get(reference)
        text = ""
        if difference is not None:
            advantage = difference.advantage
            text = f"{_number(advantage.value, sign='+')} {_interval(advantage, sign='+')} {difference.word}"
        line.append(text)
    return line


def _reached(rows: Sequence[Row], metric: str) -> Iterator[str]:
    """How near the best entry comes to what is possible."""
    best = next((row for row in rows if row.name == BEST), None)
    first = next((row for row in rows if row.sizes is not None), None)
    if best is None or first is None or metric_best(metric) != "highest":
        return
    possible, reached = best.cells[metric].estimate.value, first.cells[metric].estimate.value
    if possible and reached:
        yield f"The best architecture, {_title(first.name)}, comes to {reached / possible:.1%} of what is reachable.\n"


def _short(one: Compared, name: str) -> str:
    row = one.of(name)
    cell = row.cells.get(one.metrics[0]) if row else None
    if cell is None or cell.estimate.value is None:
        return ""
    reference = cell.against.get(REFERENCES[0])
    return _number(cell.estimate.value) + (f" {reference.word}" if reference and name in ARCHITECTURES else "")


def _title(name: str) -> str:
    return f"`{name}`" if name.partition(":")[0] in ARCHITECTURES else name.replace("_", " ")


def _number(value: float | None, *, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}" if abs(value) < 10 else f"{value:{sign},.2f}"


def _interval(estimate: Estimate, *, sign: str = "") -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{_number(estimate.low, sign=sign)}, {_number(estimate.high, sign=sign)}]"


def _table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in [headers, ["---"] * len(headers), *lines])
