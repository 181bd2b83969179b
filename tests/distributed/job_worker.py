"""One of several real processes over gloo: trains a prepared run folder; started by the test."""

import sys
from pathlib import Path

import torch

from recmoe.experiment import experiment_from_json
from recmoe.runs.folder import RunFolder
from recmoe.runs.worker import run_worker
from recmoe.training.runtime import start_runtime


def main() -> None:
    folder = RunFolder(Path(sys.argv[1]))
    config = experiment_from_json(folder.config.read_text())
    runtime = start_runtime(device="cpu", timeout_s=60)
    torch.set_num_threads(1)
    run_worker(config, folder, runtime=runtime)


if __name__ == "__main__":
    main()
