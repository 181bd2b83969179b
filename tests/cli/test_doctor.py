import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recmoe import doctor
from recmoe.cli import app
from recmoe.doctor import Diagnosis
from recmoe.machine import Machine
from recmoe.stack import Finding


def diagnosed(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    diagnosis = Diagnosis({"python": "3.11.1"}, Machine.read(Path.cwd()), (), findings)
    monkeypatch.setattr(doctor, "diagnose", lambda _folder: diagnosis)


def test_problem_is_printed_with_its_remedy_and_exits_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosed(
        monkeypatch, Finding("ok", "python", "3.11.1"), Finding("broken", "torch", "not installed", "make install")
    )

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 1
    assert result.stdout == ("✓ python       3.11.1\n✗ torch        not installed\n               → make install\n")


def test_warning_leaves_the_exit_code_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosed(monkeypatch, Finding("warning", "disk", "nearly full", "free some"))

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 0
    assert result.stdout.startswith("! disk")


def test_json_holds_findings_and_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosed(monkeypatch, Finding("broken", "torch", "not installed", "make install"))

    result = CliRunner().invoke(app, ["doctor", "--json"])

    values = json.loads(result.stdout)
    assert result.exit_code == 1
    assert values["is_healthy"] is False
    assert values["findings"][0]["remedy"] == "make install"
    assert values["machine"]["num_cores"] >= 1
