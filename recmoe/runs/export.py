"""export_run(): the bundle of a finished run, proved once more, where it is wanted."""

import shutil
from pathlib import Path

from recmoe.errors import TrainingError
from recmoe.export.bundle import ModelBundle
from recmoe.export.manifest import Manifest
from recmoe.runs.folder import RunFolder
from recmoe.training.checkpoint_folder import committed


def export_run(folder: RunFolder, target: Path) -> ModelBundle:
    """Copy a run's bundle, verify every file of the copy, and replay it.

    Args:
        target: folder to make; an unfinished copy never carries this name.

    Raises:
        TrainingError: the folder holds no run or an unfinished one, or the target exists.
        BundleError: the bundle is damaged, or its scores differ from the training model's.
    """
    bundle = run_bundle(folder)
    Manifest.read(bundle).verify(bundle)
    if target.exists():
        raise TrainingError(f"{target} exists already; remove it or choose another --to")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(bundle, unfinished)
        ModelBundle.load(unfinished).check_replay()
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return ModelBundle.load(target)


def run_bundle(folder: RunFolder) -> Path:
    """The bundle inside a run folder.

    Raises:
        TrainingError: there is no run, or it has not come to its end.
    """
    if not folder.config.exists():
        raise TrainingError(f"{folder.root} holds no run; name the --run-dir of a training")
    if folder.pretraining.exists():
        raise TrainingError(
            f"the run in {folder.root} is a pre-training, which predicts no task; train from it with recmoe train "
            f"CONFIG --warm-start {folder.root}"
        )
    if not folder.bundle.exists():
        status = folder.state.get("status", "not started")
        if status == "finished":
            raise TrainingError(
                f"the bundle of the run in {folder.root} is gone; recmoe train --resume or recmoe export makes it "
                "again from the best checkpoint"
            )
        raise TrainingError(f"the run in {folder.root} is {status} and has no bundle yet; go on with --resume")
    return folder.bundle


def check_remakeable(folder: RunFolder) -> None:
    """Check that the bundle of a finished run can be made again.

    Raises:
        TrainingError: the checkpoints are gone too.
    """
    if not committed(folder.checkpoints):
        raise TrainingError(
            f"the bundle of the run in {folder.root} is gone, and so are the checkpoints that it could be made from; "
            "put one of them back, or train again in another --run-dir"
        )
