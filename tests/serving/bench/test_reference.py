import json
from typing import Any

import pytest

from recmoe.client import Ranking
from serving.bench.reference import Checked


def ranking(*scores: float | None, digest: str = "ab") -> dict[str, Any]:
    return {
        "request_id": None,
        "model": {"name": "shop", "version": "4", "digest": digest},
        "score": {"name": "ctr", "formula": "ctr"},
        "items": [{"item_id": place, "score": score, "tasks": {}} for place, score in enumerate(scores)],
        "warnings": [],
        "timing_ms": {"total": 1.5},
    }


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (ranking(0.5, 0.25, None), "equal"),
        (ranking(0.50001, 0.24999, None), "equal"),
        (ranking(0.5, 0.25, 0.1), "wrong"),
        (ranking(0.5, 0.3, None), "wrong"),
        (ranking(0.5, 0.25), "wrong"),
        (ranking(0.5, 0.25, None, 0.0), "wrong"),
        (ranking(0.9, 0.1, None, digest="cd"), "other_version"),
        ({"items": []}, "wrong"),
    ],
)
def test_ranking_under_load_is_compared_with_the_one_at_rest(found: dict[str, Any], outcome: str) -> None:
    references = [Ranking.read(ranking(0.9)), Ranking.read(ranking(0.5, 0.25, None))]
    checked = Checked()

    checked.compare(references, {1: json.dumps(found).encode()})

    counts = {"equal": checked.num_equal, "wrong": checked.num_wrong, "other_version": checked.num_other_version}
    assert {name for name, count in counts.items() if count} == {outcome}


def test_what_is_cut_is_wrong() -> None:
    checked = Checked()

    checked.compare([Ranking.read(ranking(0.9))], {0: b'{"items": ['})

    assert checked.num_wrong == 1
