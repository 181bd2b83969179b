"""prepare_run(): what comes before the first step of a run, by itself; ``train_run`` goes on from there."""

from pathlib import Path

from recmoe.config import dump_config
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.growth.earlier import WarmStart
from recmoe.runs.encoder import Reading
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import prepare
from recmoe.runs.warm_start import remember_warm_start


def prepare_run(
    config: ExperimentConfig,
    root: Path,
    *,
    resume: bool,
    reading: Reading | None = None,
    warm_start: WarmStart | None = None,
) -> FeatureEncoder:
    """Learn the encoder of a run and check all rows, and leave the folder ready to be trained in.

    Args:
        reading: who reads the rows; this process by default, which keeps them encoded too.
        warm_start: an earlier model to go on from: its ids keep their rows, its numbers their statistics.

    Raises:
        TrainingError: the folder belongs to another run, another process works on it, or the earlier model does not
            fit.
        RecmoeError: what data and config have to object.
    """
    folder = RunFolder(root)
    with folder.claimed():
        folder.start(dump_config(config), resume=resume)
        if warm_start is not None:
            remember_warm_start(folder, warm_start)
        is_new = folder.state.get("status") in (None, "preparing", "prepared")
        if is_new:
            folder.update_state(status="preparing")
        encoder = prepare(config, folder, reading, is_quiet=False)
        if is_new:
            folder.update_state(status="prepared")
        return encoder
