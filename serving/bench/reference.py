"""Reference: the rankings of a server at rest, which those under load must equal."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from recmoe.client import Ranking

_TOLERANCE = 1e-4
"""Between scores of one request, relative and absolute: a server may rank several requests in one product."""


@dataclass
class Checked:
    """Rankings that were compared."""

    num_equal: int = 0
    num_wrong: int = 0
    """Rankings of the same version with other scores, or that cannot be read."""
    num_other_version: int = 0
    """Rankings of another version of the model, which are not compared."""

    def compare(self, references: Sequence[Ranking], bodies: Mapping[int, bytes]) -> None:
        """Count the answers to some payloads."""
        for payload, body in bodies.items():
            reference = references[payload]
            try:
                ranking = Ranking.read(json.loads(body))
            except ValueError:
                self.num_wrong += 1
                continue
            if ranking.model.digest != reference.model.digest:
                self.num_other_version += 1
            elif _is_equal(ranking, reference):
                self.num_equal += 1
            else:
                self.num_wrong += 1


def _is_equal(ranking: Ranking, reference: Ranking) -> bool:
    """Whether the scores are the same from place to place; items of one score may change places."""
    pairs = zip_longest((item.score for item in ranking.items), (item.score for item in reference.items), fillvalue=0.0)
    is_complete = len(ranking.items) == len(reference.items)
    return is_complete and all(_is_close(one, other) for one, other in pairs)


def _is_close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
