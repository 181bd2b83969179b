"""Outcome: what became of one property of one gate, expert or architecture."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from recmoe.conformance.subject import Subject

Verdict = Literal["passed", "failed", "not applicable"]


class Deviation(Exception):  # noqa: N818
    """A property does not hold; the message says where."""


class NotApplicable(Exception):  # noqa: N818
    """A property says nothing about this one; the message says why."""


class Property(NamedTuple):
    """Something that must hold."""

    name: str
    """Such as "a batch of one row"."""
    check: Callable[[Subject], str]
    """What was seen, in one sentence; raises ``Deviation`` or ``NotApplicable``."""

    def of(self, subject: Subject) -> "Outcome":
        """What becomes of it; any error of the module that is checked is a failure."""
        try:
            return Outcome(self.name, "passed", self.check(subject))
        except NotApplicable as reason:
            return Outcome(self.name, "not applicable", str(reason))
        except Deviation as deviation:
            return Outcome(self.name, "failed", str(deviation))
        except Exception as error:
            return Outcome(self.name, "failed", f"it raised {type(error).__name__}: {_one_line(error)}")


@dataclass(frozen=True)
class Outcome:
    """One line of the table."""

    property: str
    verdict: Verdict
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def require(holds: bool, sentence: str) -> None:
    """Raises Deviation with the sentence unless it holds."""
    if not holds:
        raise Deviation(sentence)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or "without a message"
