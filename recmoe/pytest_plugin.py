"""pytest plug-in: a test-suite of another package checks its own kinds, property by property.

It comes with recmoe, by the entry point ``pytest11``::

    @pytest.mark.recmoe_kinds(MyGateConfig, MyArchitectureConfig, loops={MyGateConfig: my_loop})
    def test_conforms(recmoe_property):
        recmoe_property.check()

is one test per class and property, such as ``test_conforms[MyGateConfig-batch of one row]``. What does not apply is
skipped. pytest loads this file in every run on a machine that has recmoe: it imports nothing heavy before it is used.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from recmoe.conformance.outcome import Property
    from recmoe.conformance.subject import Subject

MARK = "recmoe_kinds"
FIXTURE = "recmoe_property"


@dataclass(frozen=True)
class PropertyOfKind:
    """One property of one kind."""

    subject: "Subject"
    property: "Property"

    def check(self) -> None:
        """Fails where the property does not hold, with the sentence that says why; skips where it does not apply."""
        outcome = self.property.of(self.subject)
        if outcome.verdict == "not applicable":
            pytest.skip(outcome.sentence)
        if outcome.verdict == "failed":
            pytest.fail(f"{outcome.property}: {outcome.sentence}", pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(*classes, loops={{}}): config classes whose properties the fixture {FIXTURE} goes through; by class, "
        "the naive loop that it must equal",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per class of the mark and property."""
    if FIXTURE not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is None:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} takes {FIXTURE}: say of which classes, by @pytest.mark.{MARK}(MyGateConfig)"
        )
    from recmoe.conformance import PROPERTIES, subject_of

    loops = mark.kwargs.get("loops", {})
    subjects = [subject_of(cls, loop=loops.get(cls)) for cls in mark.args]
    cases = [
        pytest.param(PropertyOfKind(subject, one), id=f"{type(subject.config).__name__}-{one.name}")
        for subject in subjects
        for one in PROPERTIES[subject.role]
    ]
    metafunc.parametrize(FIXTURE, cases)
