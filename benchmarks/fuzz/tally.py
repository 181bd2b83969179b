"""Tally: what was sent, what came back, and what it took."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.wire import HANG, NO_HTTP, Outcome, Sent

NUM_WORST = 10


@dataclass(frozen=True)
class Costly:
    """A request by what it took."""

    cpu_ms: float
    sent: Sent
    status: str


@dataclass
class Tally:
    """Counts everything; keeps what is wrong and what was dear."""

    limit_ms: float
    """Of a core that a request may take."""
    candidate_ms: float = 0.0
    """That it may take for each of its candidates beside."""
    statuses: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    """By route and status."""
    faults: list[tuple[str, Sent]] = field(default_factory=list)
    """Why, and what was sent."""
    worst: list[Costly] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and bytes that the server then had."""

    def add(self, sent: Sent, outcome: Outcome, cpu_s: float | None) -> None:
        """Note one request; ``cpu_s`` is None where it cannot be known."""
        self.statuses[sent.route, outcome.status] += 1
        if outcome.status in (HANG, NO_HTTP):
            self.faults.append((f"{outcome.status} after {outcome.seconds:.1f} s", sent))
        elif outcome.status.isdigit() and int(outcome.status) >= 500:
            self.faults.append((f"{outcome.status}: {outcome.body[:200].decode(errors='replace')}", sent))
        if cpu_s is not None:
            share_ms = self.candidate_ms * sent.num_candidates if outcome.status == "200" else 0.0
            self.worst.append(Costly(1000 * cpu_s - share_ms, sent, outcome.status))
            self.worst = sorted(self.worst, key=lambda one: -one.cpu_ms)[:NUM_WORST]

    @property
    def num_sent(self) -> int:
        return sum(self.statuses.values())

    @property
    def is_too_dear(self) -> bool:
        """Whether a request took more of a core than it may."""
        return bool(self.worst) and self.worst[0].cpu_ms > self.limit_ms

    def growth(self) -> float | None:
        """Bytes per second by which the server's memory grows in the second half; None where it is not known."""
        later = self.memory[len(self.memory) // 2 :]
        if len(later) < 3:
            return None
        seconds, held = np.array(later, float).T
        return float(np.polyfit(seconds, held, 1)[0])

    def page(self) -> str:
        """All of it as Markdown."""
        lines = [f"{self.num_sent:,} requests", "", "| route | status | requests |", "|---|---|--:|"]
        lines += [f"| {route} | {status} | {num:,} |" for (route, status), num in sorted(self.statuses.items())]
        lines += ["", f"{len(self.faults)} faults (5xx, no answer in time, no HTTP)"]
        lines += [f"- {why}: {sent.route}, {sent.name}" for why, sent in self.faults[:50]]
        if self.worst:
            lines += ["", f"dearest, of {self.limit_ms:g} ms of a core that a request may take:", ""]
            lines += [f"- {one.cpu_ms:.0f} ms: {one.status}, {one.sent.name}" for one in self.worst]
        if (growth := self.growth()) is not None:
            first, last = self.memory[0][1] / 2**20, self.memory[-1][1] / 2**20
            slope = f"{growth * 60 / 2**20:+.1f} per minute in the second half"
            lines += ["", f"memory: {first:,.0f} MiB at first, {last:,.0f} at last, {slope}"]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """The page, the counts as JSON, and the dearest and the faulty requests as they were sent."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fuzz.md").write_text(self.page(), encoding="utf-8")
        document: dict[str, Any] = {
            "statuses": [[*key, num] for key, num in sorted(self.statuses.items())],
            "faults": [[why, sent.route, sent.name] for why, sent in self.faults],
            "worst": [[one.cpu_ms, one.status, one.sent.name] for one in self.worst],
            "memory": self.memory,
        }
        (folder / "fuzz.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        kept = [*(one.sent for one in self.worst[:1]), *(sent for _, sent in self.faults[:20])]
        for number, sent in enumerate(kept):
            name = "worst.bin" if number == 0 and self.worst else f"fault_{number:02d}.bin"
            (folder / name).write_bytes(b"".join(sent.pieces))
