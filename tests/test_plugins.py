"""Gates, experts and architectures of other packages: named in a config, checked there, needed by a bundle."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from recmoe.config import dump_config, load_config
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import BundleError, ConfigError
from recmoe.export import ModelBundle
from recmoe.export.manifest import Manifest
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.plugins import packages_of
from recmoe.ranking import Ranker
from recmoe.registry.pyfunc import requirements

ROOT = Path(__file__).parent.parent

CODE = '''
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from recmoe.architectures import MMoEConfig
from recmoe.moe.experts import MlpExpertConfig
from recmoe.moe.gates import SoftmaxGate, SoftmaxGateConfig


class SharpGateConfig(SoftmaxGateConfig):
    kind: Literal["acme_moe.sharp"] = "acme_moe.sharp"
    sharpness: PositiveFloat = 4.0
    """How decided the shares are."""

    def build(self, *, in_features: int, num_experts: int) -> SoftmaxGate:
        return SoftmaxGate(in_features=in_features, num_experts=num_experts, temperature=1 / self.sharpness)


class PlainExpertConfig(MlpExpertConfig):
    kind: Literal["acme_moe.plain"] = "acme_moe.plain"


class WideConfig(MMoEConfig):
    kind: Literal["acme_moe.wide"] = "acme_moe.wide"
    num_experts: PositiveInt = 3


class NoKind:
    pass
'''
ENTRY_POINTS = """
[recmoe.gates]
acme_moe.sharp = acme_moe:SharpGateConfig
acme_moe.absent = acme_moe.nowhere:Gate
acme_moe.strange = acme_moe:NoKind

[recmoe.experts]
acme_moe.plain = acme_moe:PlainExpertConfig

[recmoe.architectures]
acme_moe.wide = acme_moe:WideConfig
"""
WIDE = {
    "kind": "acme_moe.wide",
    "expert_hidden": [4],
    "gate": {"kind": "acme_moe.sharp"},
    "expert": [{"kind": "acme_moe.plain"}, {"kind": "mlp"}],
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder into which the package acme-moe 1.2 is installed."""
    site = tmp_path / "site"
    metadata = site / "acme_moe-1.2.dist-info"
    metadata.mkdir(parents=True)
    (site / "acme_moe.py").write_text(CODE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-moe\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


@pytest.fixture
def acme(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package can be imported."""
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("acme_moe", None)


def message_of(tmp_path: Path, yaml: str) -> str:
    path = tmp_path / "model.yaml"
    path.write_text(yaml)
    with pytest.raises(ConfigError) as caught:
        load_config(ModelConfig, path)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.usefixtures("acme")
def test_config_names_parts_of_a_package_and_comes_back_as_it_was() -> None:
    config = ModelConfig.model_validate({"architecture": WIDE})

    dumped = dump_config(config)

    assert type(config.architecture).__name__ == "WideConfig"
    assert type(config.architecture.gate).__name__ == "SharpGateConfig"
    assert dumped["architecture"]["gate"] == {"kind": "acme_moe.sharp", "temperature": 1.0, "sharpness": 4.0}
    assert dumped["architecture"]["expert"] == [{"kind": "acme_moe.plain"}, {"kind": "mlp"}]
    assert ModelConfig.model_validate(dumped) == config
    assert ModelConfig(architecture=config.architecture) == config
    assert packages_of(dumped) == {"acme-moe": "1.2"}


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            "architecture:\n  kind: mmoe\n  gate:\n    kind: acme_moe.sharp\n    sharpnes: 2\n",
            "model.yaml:5  architecture.gate.sharpnes: unknown key, did you mean sharpness?",
        ),
        (
            "architecture:\n  kind: mmoe\n  gate:\n    kind: acme_moe.sharp\n    sharpness: -2\n",
            "model.yaml:5  architecture.gate.sharpness: input should be greater than 0",
        ),
        (
            "architecture:\n  kind: acme_moe.wide\n  gate:\n    kind: top_k\n    k: 0\n",
            "model.yaml:5  architecture.gate.k: input should be greater than 0",
        ),
        (
            "architecture:\n  kind: mmoe\n  gate:\n    kind: acme_moe.shapr\n",
            "model.yaml:4  architecture.gate.kind: no installed package brings 'acme_moe.shapr' (entry points of "
            "recmoe.gates: acme_moe.absent (acme-moe 1.2), acme_moe.sharp (acme-moe 1.2), acme_moe.strange (acme-moe "
            "1.2)); did you mean 'acme_moe.sharp'?",
        ),
        (
            "architecture:\n  kind: mmoe\n  gate:\n    kind: acme_moe.absent\n",
            "model.yaml:4  architecture.gate.kind: acme_moe.absent of acme-moe 1.2 cannot be loaded: "
            "ModuleNotFoundError: No module named 'acme_moe.nowhere'; 'acme_moe' is not a package; mend that package",
        ),
        (
            "architecture:\n  kind: mmoe\n  gate:\n    kind: acme_moe.strange\n",
            "model.yaml:4  architecture.gate.kind: acme_moe:NoKind of acme-moe 1.2 is no config class with kind: "
            "Literal['acme_moe.strange'] = 'acme_moe.strange'; mend that package",
        ),
    ],
)
def test_error_in_a_part_of_a_package_has_file_line_and_key(tmp_path: Path, yaml: str, message: str) -> None:
    found = message_of(tmp_path, yaml)

    assert found == message


def test_kind_of_no_package_names_the_entry_points_that_are_missing(tmp_path: Path) -> None:
    found = message_of(tmp_path, "architecture:\n  kind: mypackage.mine\n")

    assert found == (
        "model.yaml:2  architecture.kind: no installed package brings 'mypackage.mine' (entry points of "
        "recmoe.architectures: none); install its package, or correct the name"
    )


@pytest.fixture
def acme_bundle(
    acme: None,  # noqa: ARG001
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    bundle: ModelBundle,
    shop_encoder: FeatureEncoder,
) -> Path:
    """A bundle whose model is made of the package's parts."""
    model = {**bundle.config["model"], "architecture": WIDE}
    torch.manual_seed(3)
    ranker: MultiTaskRanker = build_model(
        layout=shop_encoder.layout,
        tasks=bundle.tasks,
        config=ModelConfig.model_validate(model),
        tables=lambda rows: PlainTables(rows, seed=3, init_std=1.0),
    ).eval()
    return make_bundle(tmp_path / "bundle", model=ranker, config={**bundle.config, "model": model})


def loaded(bundle: Path, *sites: Path) -> subprocess.CompletedProcess[str]:
    """Another process, which has the packages of these folders, loads the bundle and scores its replay."""
    code = (
        "import recmoe\n"
        "from pathlib import Path\n"
        "from recmoe.errors import BundleError\n"
        "from recmoe.export import ModelBundle\n"
        f"try: ModelBundle.load(Path({str(bundle)!r})).check_replay(); print('scored')\n"
        "except BundleError as error: print(error)\n"
    )
    environment = {"PYTHONPATH": ":".join(map(str, [ROOT, *sites])), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=bundle)


def test_bundle_names_the_package_that_it_needs(acme_bundle: Path, site: Path) -> None:
    with_package, without = loaded(acme_bundle, site), loaded(acme_bundle)

    assert Manifest.read(acme_bundle).packages == {"acme-moe": "1.2"}
    assert (with_package.stdout, with_package.returncode) == ("scored\n", 0), with_package.stderr
    assert without.stdout == (
        f"{acme_bundle} is made of parts of acme-moe 1.2, which is not installed: pip install acme-moe==1.2\n"
    )


def test_bundle_of_another_version_of_a_package_warns(
    acme_bundle: Path, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = site / "acme_moe-1.2.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.2", "1.3"))

    ModelBundle.load(acme_bundle)

    assert f"{acme_bundle} was made with acme-moe 1.2, and 1.3 is installed" in caplog.text


def test_registered_version_requires_the_package(acme_bundle: Path) -> None:
    needed = requirements(Ranker.load(acme_bundle))

    assert "acme-moe==1.2" in needed


def test_bundle_without_parts_of_packages_needs_none(bundle_path: Path) -> None:
    manifest = Manifest.read(bundle_path)

    assert manifest.packages == {}


def test_bundle_error_is_what_a_missing_package_raises(acme_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not folder.endswith("site")])

    with pytest.raises(BundleError, match=r"is made of parts of acme-moe 1\.2, which is not installed: pip install"):
        ModelBundle.load(acme_bundle)


def test_part_of_a_package_conforms(site: Path) -> None:
    environment: dict[str, Any] = {"PYTHONPATH": f"{ROOT}:{site}", "OMP_NUM_THREADS": "1"}
    code = "import recmoe, sys; sys.argv = ['recmoe', *sys.argv[1:]]; from recmoe.cli import main; main()"

    run = subprocess.run(
        [sys.executable, "-c", code, "check-architecture", "acme_moe:SharpGateConfig"],
        capture_output=True,
        text=True,
        env=environment,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("9 passed, 2 not applicable\n")
