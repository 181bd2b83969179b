"""Kinds of baselines; the union is their registry. To add one: a file, its class here and its name in BaselineKind."""

from typing import get_args

from recmoe.baselines.boosted_trees import BoostedTrees
from recmoe.baselines.logistic_regression import LogisticRegression

AnyBaseline = LogisticRegression | BoostedTrees

BASELINES: dict[str, type[AnyBaseline]] = {baseline.kind: baseline for baseline in get_args(AnyBaseline)}
