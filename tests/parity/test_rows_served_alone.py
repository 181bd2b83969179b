"""Gates that share out experts among the rows of a training batch: a served row is scored by itself, and training says
what became of its rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.moe.gates.in_training import InTrainingConfig
from recmoe.ranking import Ranker
from recmoe.runs.train import RunResult

RULES = [rule.model_fields["kind"].default for rule in get_args(get_args(InTrainingConfig)[0])]


@pytest.mark.parametrize("rule", RULES)
def test_served_scores_of_a_row_do_not_depend_on_the_batch(
    rule: str,
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    gate = f"model.architecture.gate={{kind: switch, in_training: {{kind: {rule}}}}}"
    folder = train(make_experiment(tmp_path, gate), tmp_path / "run").folder
    rows = shop_log.slice(0, 40)

    ranker = Ranker.load(folder.bundle)
    together_NT = ranker.score(rows)
    alone_NT = np.concatenate([ranker.score(rows.slice(row, 1)) for row in range(rows.num_rows)])

    np.testing.assert_allclose(alone_NT, together_NT, rtol=0, atol=1e-6)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    rerouted = [line["train/ctr/level0/rerouted"] for line in lines if "train/ctr/level0/rerouted" in line]
    assert len(rerouted) > 1
    assert all(0 < share < 1 for share in rerouted)
