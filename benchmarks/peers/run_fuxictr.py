"""FuxiCTR: its feature map, its loader and its ``fit``, with MMoE or PLE out of its own parts."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader

from benchmarks.peers.fuxictr_models import PLE, MMoE
from benchmarks.peers.job import EVALUATION_BATCH_SIZE, Job, StepMeter, auc_of, ready_batches

FORMAT = "npz"
"""The default of its loader. The other one, Parquet through Ray Data, was slower here by a twentieth."""
SPLITS = ("train", "validation", "test")


def main() -> None:
    """Train, measure, answer."""
    job = Job.from_command_line()
    started_s = time.perf_counter()
    paths = {split: _npz(job, split) for split in SPLITS}
    feature_map = _feature_map(job)
    train, validation = RankDataLoader(
        feature_map,
        stage="train",
        train_data=paths["train"],
        valid_data=paths["validation"],
        batch_size=job.batch_size,
        data_format=FORMAT,
    )
    model = (MMoE if job.model == "mmoe" else PLE)(feature_map, job)
    prepare_s = time.perf_counter() - started_s

    Path(model.checkpoint).parent.mkdir(parents=True, exist_ok=True)
    with StepMeter(batch_size=job.batch_size, num_rows=train.num_samples, max_steps=job.num_steps) as meter:
        model.fit(train, epochs=1, validation_data=validation)
    values: dict[str, Any] = {
        "samples_per_s": meter.samples_per_s,
        "num_steps": meter.num_steps,
        "peak_gib": meter.peak_gib,
    }
    if job.num_steps is None:
        test = RankDataLoader(
            feature_map, stage="test", test_data=paths["test"], batch_size=EVALUATION_BATCH_SIZE, data_format=FORMAT
        )
        truth = np.concatenate([np.stack([batch[name].numpy() for name in job.labels], axis=1) for batch in test])
        predictions = model.predict(test)
        values["auc"] = auc_of(job.labels, truth, np.stack([predictions[name] for name in job.labels], axis=1))
    if job.num_ready_steps:
        with StepMeter(batch_size=job.batch_size, max_steps=job.num_ready_steps) as meter:
            model.train_epoch(ready_batches(train, num_steps=job.num_ready_steps))
        values["ready_samples_per_s"] = meter.samples_per_s
    job.answer(prepare_s=prepare_s, **values)


def _feature_map(job: Job) -> FeatureMap:
    """What FuxiCTR's preprocessing would find; the ids are row numbers already, so there is nothing to look for."""
    feature_map = FeatureMap("log", job.cache)
    for name, num in job.num_ids.items():
        feature_map.features[name] = {"source": "", "type": "categorical", "vocab_size": num}
    for name in job.floats:
        feature_map.features[name] = {"source": "", "type": "numeric"}
    feature_map.labels = list(job.labels)
    feature_map.num_fields = feature_map.get_num_fields()
    feature_map.set_column_index()
    return feature_map


def _npz(job: Job, split: str) -> str:
    """One file of the log as its loader reads it."""
    path = Path(job.cache) / f"{split}.npz"
    frame = pd.read_parquet(job.path(split))
    columns: dict[str, Any] = {str(name): frame[name].to_numpy() for name in frame}
    np.savez(path, **columns)
    return str(path)


if __name__ == "__main__":
    main()
