"""The log of an alias: promotions pile up, rollbacks take them off."""

import json
from dataclasses import asdict, replace

import pytest

from recmoe.errors import RegistryError
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


def tags_of(*moves: str, alias: str = "champion") -> dict[str, str]:
    """The tags that some moves leave, one after the other."""
    tags: dict[str, str] = {}
    for entry in log(*moves).entries:
        tags[PromotionLog.from_tags(tags, alias).next_tag(alias)] = entry.to_tag()
    return tags


def test_log_reads_back_whatever_other_tags_there_are() -> None:
    tags = tags_of("promote 1", "promote 2", "rollback 1")

    found = PromotionLog.from_tags({**tags_of("promote 7", alias="canary"), "owner": "ann", **tags}, "champion")

    assert [(entry.action, entry.version, entry.previous) for entry in found.entries] == [
        ("promote", "1", None),
        ("promote", "2", "1"),
        ("rollback", "1", "2"),
    ]


def test_list_in_one_tag_is_the_beginning_of_a_log() -> None:
    old = json.dumps([asdict(entry) for entry in log("promote 1", "promote 2").entries])
    tags = {"recmoe.promotions.champion": old}

    tags[PromotionLog.from_tags(tags, "champion").next_tag("champion")] = log("promote 3").entries[0].to_tag()

    assert [entry.version for entry in PromotionLog.from_tags(tags, "champion").entries] == ["1", "2", "3"]


def test_two_moves_at_the_same_moment_are_both_kept_in_one_order() -> None:
    tags = tags_of("promote 1")
    before = PromotionLog.from_tags(tags, "champion")

    tags[before.next_tag("champion")] = log("promote 2").entries[0].to_tag()
    tags[before.next_tag("champion")] = log("promote 3").entries[0].to_tag()

    found = PromotionLog.from_tags(tags, "champion").entries
    assert sorted(entry.version for entry in found) == ["1", "2", "3"]
    assert [entry.previous for entry in found[1:]] == [entry.version for entry in found[:-1]]


def test_note_that_no_tag_can_hold_is_refused() -> None:
    long = replace(log("promote 1").entries[0], note="x" * 3001)

    with pytest.raises(RegistryError, match="the note has 3,001 characters; a note may have 3,000, shorten it"):
        long.to_tag()
