"""Checkpoints of several processes: resumed by other numbers of them and other shardings, and killed while saving."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def run_command(module: str, *arguments: str) -> Any:
    """What a command prints as JSON; its processes are forked, so that packages are imported once."""
    run = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


@pytest.mark.cluster
def test_a_checkpoint_goes_on_in_other_processes_and_shardings() -> None:
    cases = ("1:table_wise", "2:column_wise", "2:data_parallel", "4:table_wise")

    outcomes = run_command("benchmarks.reshard_matrix", "--cases", *cases)

    assert [(one["saved_by"], one["resumed_by"]) for one in outcomes] == [(a, b) for a in cases for b in cases]
    assert all(one["is_loaded_equal"] for one in outcomes)
    assert all(one["is_end_equal"] for one in outcomes if one["saved_by"] == one["resumed_by"])
    assert max(one["max_difference"] for one in outcomes) <= 1e-6


@pytest.mark.cluster
def test_a_save_that_is_killed_leaves_nothing_that_loads_wrongly() -> None:
    kills = run_command("benchmarks.killed_saves", "--kills", "20")

    assert len(kills) == 20
    assert [kill["num_damaged"] for kill in kills] == [0] * 20
    assert all(kill["is_right"] for kill in kills)
    # Most moments lie inside a save; whether a given one does is chance.
    assert sum(kill["was_saving"] for kill in kills) >= 5
    assert max(kill["newest_step"] or 0 for kill in kills) > 1
