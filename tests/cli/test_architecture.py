import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recmoe.cli import app

MODULE = """
from typing import Literal

import torch

from recmoe.moe.gates import SoftmaxGate, SoftmaxGateConfig


class MyGateConfig(SoftmaxGateConfig):
    kind: Literal["my_gate"] = "my_gate"
    scale: float = 1.0

    def build(self, *, in_features, num_experts):
        gate = SoftmaxGate(in_features=in_features, num_experts=num_experts)
        gate.register_forward_hook(lambda gate, args, p_BV: self.scale * p_BV)
        return gate


def my_loop(gate, x_D):
    return torch.softmax(gate.weight_VD @ x_D, dim=0)
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_gates.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_gates", raising=False)


def test_gate_in_the_folder_is_checked_property_by_property() -> None:
    result = CliRunner().invoke(app, ["check-architecture", "my_gates:MyGateConfig", "--loop", "my_gates:my_loop"])

    lines = result.stdout.splitlines()
    assert result.exit_code == 0, result.stdout
    assert lines[0].split() == ["property", "verdict", "what", "was", "seen"]
    assert lines[1].startswith("weights are shares of one   ✓ passed")
    assert any(line.startswith("sparse skips work           · not applicable  it says of itself") for line in lines)
    assert any(line.startswith("equal to a naive loop       ✓ passed") for line in lines)
    assert lines[-1] == "10 passed, 1 not applicable"


def test_property_that_does_not_hold_exits_with_one() -> None:
    result = CliRunner().invoke(app, ["check-architecture", "my_gates:MyGateConfig", "scale=2", "--json"])

    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (document["checked"], document["role"]) == ("my_gates:MyGateConfig", "gate")
    failed = {one["property"]: one["sentence"] for one in document["outcomes"] if one["verdict"] == "failed"}
    assert failed == {
        "weights are shares of one": "the weights of a row miss a sum of one by 1",
        "fused = called": failed["fused = called"],
    }
