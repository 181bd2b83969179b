"""Warnings and explanations of ``recmoe rank``, as the terminal shows them."""

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.cli.serving import _told
from recmoe.errors import ServingError
from recmoe.ranking.request import FeatureWarning
from recmoe.ranking.score import did_you_mean

PRICE = "Preis\n(EUR)"


@pytest.mark.parametrize(
    ("warning", "line"),
    [
        (FeatureWarning(feature="age", code="missing", count=2), "age: 2 missing"),
        (
            FeatureWarning(feature="Preis_EUR", column=PRICE, code="missing", count=2),
            r"Preis_EUR (field 'Preis\n(EUR)'): 2 missing",
        ),
        (
            FeatureWarning(
                feature="Preis\n(EU)", code="unknown_field", count=1, hint=did_you_mean("Preis\n(EU)", [PRICE])
            ),
            r"'Preis\n(EU)': the model does not know this field, it is ignored; did you mean 'Preis\n(EUR)'?",
        ),
    ],
)
def test_warning_is_one_line_that_names_the_field(warning: FeatureWarning, line: str) -> None:
    assert _told(warning) == line


def test_rank_on_a_gpu_that_is_not_there_says_so(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)

    result = CliRunner().invoke(
        app, ["rank", "-", "--model", str(bundle_path), "--device", "cuda"], input='{"candidates": [{"item_id": 101}]}'
    )

    assert isinstance(result.exception, ServingError)
    assert "is built without CUDA" in str(result.exception)


def test_explanations_are_a_line_per_task_and_gate(bundle_path: Path) -> None:
    request = {"user": {"age": 40}, "candidates": [{"item_id": 101}, {"item_id": 102}], "top_k": 1, "explain": True}

    result = CliRunner().invoke(app, ["rank", "-", "--model", str(bundle_path)], input=json.dumps(request))

    number = r"-?\d+\.\d{3}"
    assert re.search(rf"^10[12]:\n  ctr: log-odds {number} = {number}, \w+ [+-]\d", result.stdout, re.MULTILINE)
    assert len(re.findall(r"^  (?:ctr|cvr|ctcvr): ", result.stdout, re.MULTILINE)) == 3
    assert re.search(r"^  level 0, gate cvr: shared\.0 \d\.\d{3}, shared\.1 ", result.stdout, re.MULTILINE)
