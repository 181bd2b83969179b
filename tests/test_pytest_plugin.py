"""Another package's test-suite checks its own kinds by the plug-in that comes with recmoe."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SUITE = """
import pytest
import torch

from recmoe.moe.gates import SoftmaxGateConfig
from recmoe.moe.experts import MlpExpertConfig


class DoubledConfig(SoftmaxGateConfig):
    def build(self, *, in_features, num_experts):
        gate = super().build(in_features=in_features, num_experts=num_experts)
        gate.register_forward_hook(lambda gate, args, p_BV: 2 * p_BV)
        return gate


def loop(gate, x_D):
    return torch.softmax(gate.weight_VD @ x_D, dim=0)


@pytest.mark.recmoe_kinds(SoftmaxGateConfig, MlpExpertConfig, DoubledConfig, loops={SoftmaxGateConfig: loop})
def test_conforms(recmoe_property):
    recmoe_property.check()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What an installed recmoe says of its entry points, as this tree's pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [f"{name} = {place}" for name, place in project["entry-points"]["pytest11"].items()]
    metadata = tmp_path / "site" / "recmoe-0.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: recmoe\nVersion: 0.0\n")
    (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    return tmp_path / "site"


def run_suite(folder: Path, site: Path, suite: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(suite)
    environment = {"PYTHONPATH": f"{site}:{ROOT}", "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", *options, "test_mine.py"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.slow
def test_each_property_of_each_class_is_a_test(tmp_path: Path, site: Path) -> None:
    run = run_suite(tmp_path, site, SUITE, "-rfs")

    failed = [line.split("::")[1].split(" - ")[0] for line in run.stdout.splitlines() if line.startswith("FAILED")]
    assert run.returncode == 1, run.stdout + run.stderr
    assert failed == [
        "test_conforms[DoubledConfig-weights are shares of one]",
        "test_conforms[DoubledConfig-fused = called]",
    ]
    assert "weights are shares of one: the weights of a row miss a sum of one by 1" in run.stdout
    assert "it says of itself that it is not sparse" in run.stdout
    assert "2 failed, 26 passed, 4 skipped" in run.stdout


def test_fixture_without_classes_says_what_is_missing(tmp_path: Path, site: Path) -> None:
    run = run_suite(tmp_path, site, "def test_conforms(recmoe_property):\n    recmoe_property.check()\n")

    assert run.returncode != 0
    assert "test_conforms takes recmoe_property: say of which classes, by @pytest.mark.recmoe_kinds(MyG" in run.stdout


def test_plug_in_loads_nothing_heavy(tmp_path: Path, site: Path) -> None:
    suite = (
        "import sys\n\n\ndef test_light():\n"
        "    assert 'recmoe.pytest_plugin' in sys.modules\n    assert 'torch' not in sys.modules\n"
    )

    run = run_suite(tmp_path, site, suite)

    assert run.returncode == 0, run.stdout
