"""DeepCTR-Torch: MMOE or PLE and its ``fit``, none of them touched."""

import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models.multitask.mmoe import MMOE
from deepctr_torch.models.multitask.ple import PLE
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.job import EVALUATION_BATCH_SIZE, Job, StepMeter, auc_of, ready_batches


def main() -> None:
    """Train, measure, answer."""
    job = Job.from_command_line()
    started_s = time.perf_counter()
    x, y = _columns(job, "train")
    model = _model(job)
    prepare_s = time.perf_counter() - started_s

    with StepMeter(batch_size=job.batch_size, num_rows=len(y), max_steps=job.num_steps) as meter:
        model.fit(x, y, batch_size=job.batch_size, epochs=1, verbose=0)
    values: dict[str, Any] = {
        "samples_per_s": meter.samples_per_s,
        "num_steps": meter.num_steps,
        "peak_gib": meter.peak_gib,
    }
    if job.num_steps is None:
        x_test, y_test = _columns(job, "test")
        values["auc"] = auc_of(job.labels, y_test, model.predict(x_test, EVALUATION_BATCH_SIZE))
    if job.num_ready_steps:
        values["ready_samples_per_s"] = _ready_samples_per_s(job, model, x, y)
    job.answer(prepare_s=prepare_s, **values)


def _columns(job: Job, split: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns by name and labels, in memory, as ``fit`` takes them."""
    frame = pd.read_parquet(job.path(split))
    x = {name: frame[name].to_numpy() for name in (*job.num_ids, *job.floats)}
    return x, frame[list(job.labels)].to_numpy().astype(np.float32)


def _model(job: Job) -> Any:
    sizes = job.sizes
    columns = [SparseFeat(name, num, embedding_dim=sizes.width) for name, num in job.num_ids.items()]
    columns += [DenseFeat(name, 1) for name in job.floats]
    shared = {
        "expert_dnn_hidden_units": sizes.expert_hidden,
        "gate_dnn_hidden_units": (),
        "tower_dnn_hidden_units": sizes.tower_hidden,
        # Its regularisation would read all tables in every step; nobody else has one.
        "l2_reg_linear": 0.0,
        "l2_reg_embedding": 0.0,
        "task_types": ["binary"] * len(job.labels),
        "task_names": list(job.labels),
        "seed": job.seed,
        "device": "cuda:0" if job.device == "cuda" else "cpu",
    }
    if job.model == "mmoe":
        model = MMOE(columns, num_experts=sizes.num_experts, **shared)
    else:
        model = PLE(
            columns,
            shared_expert_num=sizes.num_shared_experts,
            specific_expert_num=sizes.num_task_experts,
            num_levels=sizes.num_levels,
            **shared,
        )
    model.compile(torch.optim.Adam(model.parameters(), lr=sizes.lr), loss=["binary_crossentropy"] * len(job.labels))
    return model


def _ready_samples_per_s(job: Job, model: Any, x: dict[str, np.ndarray], y: np.ndarray) -> float:
    """``fit`` makes its loader itself, so its step is repeated here, line by line in meaning."""
    num_rows = min(len(y), 16 * job.batch_size)
    x_NC = np.stack([x[name].reshape(len(y))[:num_rows] for name in model.feature_index], axis=-1)
    loader = DataLoader(
        TensorDataset(torch.from_numpy(x_NC), torch.from_numpy(y[:num_rows])), batch_size=job.batch_size
    )
    model.train()
    with StepMeter(batch_size=job.batch_size) as meter:
        for x_BC, y_BT in ready_batches(loader, num_steps=job.num_ready_steps):
            x_BC, y_BT = x_BC.to(model.device).float(), y_BT.to(model.device).float()
            predictions_BT = model(x_BC)
            model.optim.zero_grad()
            losses = [f(predictions_BT[:, t], y_BT[:, t], reduction="sum") for t, f in enumerate(model.loss_func)]
            loss = sum(losses)
            total = loss + model.get_regularization_loss() + model.aux_loss
            loss.item(), total.item()
            total.backward()
            model.optim.step()
    return meter.samples_per_s


if __name__ == "__main__":
    main()
