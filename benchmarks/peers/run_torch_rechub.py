"""torch-rechub: MMOE or PLE, its DataGenerator and its MTLTrainer, none of them touched."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator

from benchmarks.peers.job import EVALUATION_BATCH_SIZE, Job, StepMeter, auc_of, ready_batches


def main() -> None:
    """Train, measure, answer."""
    job = Job.from_command_line()
    started_s = time.perf_counter()
    x, y = _columns(job, "train")
    x_validation, y_validation = _columns(job, "validation")
    x_test, y_test = _columns(job, "test")
    train, _, _ = DataGenerator(x, y).generate_dataloader(
        x_val=x_validation, y_val=y_validation, x_test=x_test, y_test=y_test, batch_size=job.batch_size
    )
    trainer = _trainer(job)
    prepare_s = time.perf_counter() - started_s

    with StepMeter(batch_size=job.batch_size, num_rows=len(y), max_steps=job.num_steps) as meter:
        trainer.train_one_epoch(train)
    values: dict[str, Any] = {
        "samples_per_s": meter.samples_per_s,
        "num_steps": meter.num_steps,
        "peak_gib": meter.peak_gib,
    }
    if job.num_steps is None:
        _, _, test = DataGenerator(x, y).generate_dataloader(
            x_val=x_validation, y_val=y_validation, x_test=x_test, y_test=y_test, batch_size=EVALUATION_BATCH_SIZE
        )
        predictions = np.array(trainer.predict(trainer.model, (batch for batch, _ in test)))
        values["auc"] = auc_of(job.labels, y_test, predictions)
    if job.num_ready_steps:
        with StepMeter(batch_size=job.batch_size) as meter:
            trainer.train_one_epoch(ready_batches(train, num_steps=job.num_ready_steps))
        values["ready_samples_per_s"] = meter.samples_per_s
    job.answer(prepare_s=prepare_s, **values)


def _columns(job: Job, split: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns by name and labels, in memory, as DataGenerator takes them."""
    frame = pd.read_parquet(job.path(split))
    return {name: frame[name].to_numpy() for name in (*job.num_ids, *job.floats)}, frame[list(job.labels)].to_numpy()


def _trainer(job: Job) -> MTLTrainer:
    sizes = job.sizes
    features = [SparseFeature(name, vocab_size=num, embed_dim=sizes.width) for name, num in job.num_ids.items()]
    features += [DenseFeature(name) for name in job.floats]
    # Batch norm follows every linear layer, gates included; the library has no switch for it.
    expert = {"dims": list(sizes.expert_hidden), "activation": "relu", "dropout": 0.0}
    towers = [{"dims": list(sizes.tower_hidden), "activation": "relu", "dropout": 0.0} for _ in job.labels]
    kinds = ["classification" for _ in job.labels]
    if job.model == "mmoe":
        model = MMOE(features, kinds, sizes.num_experts, expert_params=expert, tower_params_list=towers)
    else:
        model = PLE(
            features,
            kinds,
            n_level=sizes.num_levels,
            n_expert_specific=sizes.num_task_experts,
            n_expert_shared=sizes.num_shared_experts,
            expert_params=expert,
            tower_params_list=towers,
        )
    return MTLTrainer(
        model,
        task_types=kinds,
        optimizer_params={"lr": sizes.lr},
        n_epoch=1,
        device="cuda:0" if job.device == "cuda" else "cpu",
        model_path=str(Path(job.cache)),
    )


if __name__ == "__main__":
    main()
