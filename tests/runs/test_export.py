import json
import shutil
from pathlib import Path

import pytest

from recmoe.errors import BundleError, TrainingError
from recmoe.runs.export import export_run
from recmoe.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path, bundle_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.config.write_text(json.dumps({"name": "shop"}))
    folder.update_state(status="finished")
    shutil.copytree(bundle_path, folder.bundle)
    return folder


def test_exported_bundle_is_the_one_of_the_run(run: RunFolder, tmp_path: Path) -> None:
    bundle = export_run(run, tmp_path / "out" / "shop")

    assert bundle.name == "shop"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["shop"]


def test_damaged_bundle_is_not_exported(run: RunFolder, tmp_path: Path) -> None:
    dense = run.bundle / "dense.safetensors"
    dense.write_bytes(dense.read_bytes()[:-1] + b"!")

    with pytest.raises(BundleError, match=r"run/bundle/dense\.safetensors is damaged"):
        export_run(run, tmp_path / "out" / "shop")

    assert not (tmp_path / "out").exists()


def test_folder_that_exists_is_not_overwritten(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"exists already; remove it or choose another --to"):
        export_run(run, tmp_path)


def test_unfinished_run_has_no_bundle_to_export(run: RunFolder, tmp_path: Path) -> None:
    shutil.rmtree(run.bundle)
    run.update_state(status="interrupted")

    with pytest.raises(TrainingError, match=r"is interrupted and has no bundle yet; go on with --resume"):
        export_run(run, tmp_path / "out")


def test_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no run; name the --run-dir of a training"):
        export_run(RunFolder(tmp_path), tmp_path / "out")
