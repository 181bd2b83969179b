"""The log of an alias: promotions pile up, rollbacks take them off."""

import pytest

from recmoe.registry.promotions import Promotion, PromotionLog


def log(*moves: str) -> PromotionLog:
    """A log of moves like "promote 1"."""
    entries = []
    for move in moves:
        action, version = move.split()
        entries.append(Promotion(version, None, "2026-01-01", "me", action))  # type: ignore[arg-type]
    return PromotionLog(tuple(entries))


@pytest.mark.parametrize(
    ("moves", "pile"),
    [
        ((), []),
        (("promote 1", "promote 2"), ["1", "2"]),
        (("promote 1", "promote 1"), ["1"]),
        (("promote 1", "promote 2", "promote 3", "rollback 2"), ["1", "2"]),
        (("promote 1", "promote 2", "promote 3", "rollback 2", "rollback 1"), ["1"]),
        (("promote 1", "promote 2", "rollback 1", "promote 3"), ["1", "3"]),
        (("promote 1", "found 5", "promote 2"), ["1", "5", "2"]),
        (("promote 1", "promote 2", "promote 3", "rollback 1"), ["1"]),
    ],
)
def test_pile_holds_what_was_in_use(moves: tuple[str, ...], pile: list[str]) -> None:
    assert log(*moves).pile() == pile


def test_previous_skips_versions_that_are_gone() -> None:
    found = log("promote 1", "promote 2", "promote 3").previous(["1", "3"])

    assert found == "1"


def test_first_version_has_no_previous() -> None:
    assert log("promote 1").previous(["1"]) is None
    assert log().previous([]) is None


def test_log_reads_back() -> None:
    before = log("promote 1", "rollback 2")

    assert PromotionLog.from_json(before.to_json()) == before


def test_log_keeps_the_newest_entries() -> None:
    many = log(*[f"promote {version}" for version in range(500)])

    kept = PromotionLog.from_json(many.to_json()).entries

    assert len(kept) == 400
    assert kept[-1].version == "499"
