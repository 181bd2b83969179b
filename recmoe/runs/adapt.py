"""adapt(): a bundle that has learned a new domain or task from few rows; what it gains there and costs elsewhere."""

# N few rows, n some of them, F folds, T tasks, Z logits, S steps

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.data.encoded_rows import EncodedRows
from recmoe.data.loader import BatchLoader
from recmoe.errors import ConfigError, DataError
from recmoe.evaluation.predict import predict_rows
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle, check_free
from recmoe.features.batch import Batch
from recmoe.runs.cost import Comparison, Cost, compared, with_logits
from recmoe.runs.derived import Derivation
from recmoe.runs.few_rows import Copy, Rows, copy_of, drawn, encoded
from recmoe.runs.origin import Origin
from recmoe.runs.teacher import LEARNING_KEYS
from recmoe.tasks.funnel import TaskSet

_logger = logging.getLogger(__name__)

NUM_FOLDS = 5
"""Parts of the few rows; each is predicted by a model that has learned from the others."""


@dataclass(frozen=True)
class Adapted:
    """An adapted model."""

    bundle: ModelBundle
    num_rows: int
    steps: int
    """Taken on all rows."""
    is_chosen: bool
    """Whether the number of steps was chosen on rows held back, or asked for."""
    losses_S: Sequence[float]
    """Mean loss of the rows held back, after 0, 1, … steps."""
    here: Comparison
    """Both models on the few rows: the new one by folds, each predicted by what had learned from the others."""
    cost: Cost
    """Both models on the test split."""
    seconds: float


def adapt(
    origin: Origin,
    target: Path,
    *,
    paths: Sequence[str],
    steps: int | None = None,
    overrides: Sequence[str] = (),
    cache_dir: Path,
) -> Adapted:
    """Write a bundle whose dense weights have taken a few steps on few rows, and measure it on these and elsewhere.

    The rows are cut into folds. A model that has learned from all but one predicts that one, after every step; the
    steps after which the folds together are predicted best are taken on all rows. Tables stay as they are.

    Args:
        origin: the model that it begins as.
        target: folder to make.
        paths: files, folders or globs of the labelled rows.
        steps: how many; by default they are chosen, ``adaptation.steps`` at most.
        overrides: ``key.path=value`` for the model's config; ``tasks.NAME=…`` adds a task.
        cache_dir: where rows are encoded.

    Raises:
        ConfigError: an override that does not fit, or changes more than adaptation, data, evaluation and new tasks.
        DataError, SchemaError: the rows cannot be read, lack a column or the labels of a task, or are too few.
        BundleError, TrainingError: the folder is there, the origin cannot be read, or the steps diverge.
    """
    check_free(target)
    started_s = time.perf_counter()
    derivation = Derivation.of(origin.load(), cache_dir=cache_dir, overrides=overrides)
    new_tasks = _new_tasks(derivation, origin.source)
    stream = derivation.few_rows(paths)
    rows = encoded(stream, derivation.encoder, cache_dir=cache_dir)
    config = _measurable(derivation, new_tasks)
    copy = copy_of(origin, config, derivation.encoder, new_tasks=new_tasks)
    if new_tasks and not copy.is_new:
        raise ConfigError(f"{', '.join(new_tasks)} has no weights of its own to learn; add a task that has a label")
    adapter = Adapter(copy, config, rows, new_tasks=new_tasks)
    losses_S, logits_SNZ = adapter.held_back(config.adaptation.steps if steps is None else steps)
    taken = int(np.argmin(losses_S)) if steps is None else steps
    for _ in adapter.learn(np.arange(rows.num_rows), taken):
        pass
    made, cost = derivation.write(target, config=config, model=copy.model.ranker.eval(), lineage=origin.lineage)
    loader = BatchLoader(stream, made.encoder, batch_size=config.training.evaluation_batch_size)
    now = with_logits(predict_rows(made.model, loader).predictions, made.tasks, logits_SNZ[taken])
    here = compared(derivation.bundle, made, now, stream, config)
    seconds = time.perf_counter() - started_s
    return Adapted(made, rows.num_rows, taken, steps is None, losses_S, here, cost, seconds)


class Adapter:
    """Steps a copy of a model on some of a few rows, as often as is asked for.

    Args:
        copy: is stepped in place.
        config: of the new model.
        rows: the few rows.
        new_tasks: those that the model did not have; only these are learned, where there are any.

    Raises:
        DataError: the rows are too few, or lack labels.
    """

    def __init__(
        self, copy: Copy, config: ExperimentConfig, rows: EncodedRows, *, new_tasks: Collection[str] = ()
    ) -> None:
        self._model = copy.model
        self._tasks = copy.model.ranker.tasks
        self._learner = config.adaptation.build(copy.model, is_new=copy.is_new)
        self._config = config
        self._rows = rows
        self._all = rows.batch(np.arange(rows.num_rows))
        learned = [name for name in self._tasks.names if name in new_tasks or not new_tasks]
        _check_labels(self._tasks.targets(self._all.labels_BL)[1], self._tasks, learned, are_new=bool(new_tasks))
        self.fold_N = _folds(self._all, seed=config.seed)
        logits = [logit for name in new_tasks for logit in self._tasks.logits.get(name, ())]
        self._new_logits = [self._tasks.logit_names.index(logit) for logit in logits]

    def learn(self, of_n: Rows, num_steps: int) -> Iterator[int]:
        """Start again, and step on some of the rows; gives the number of steps done, 0 first."""
        self._learner.restart()
        torch.manual_seed(self._config.seed)
        self._begin(self._all.labels_BL[of_n])
        yield 0
        batches = drawn(
            self._rows,
            of_n,
            batch_size=self._config.adaptation.batch_size,
            block=self._config.data.shuffle_block or 1,
            random=np.random.default_rng(self._config.seed),
        )
        yield from self._learner.steps(islice(batches, num_steps))

    def held_back(self, num_steps: int) -> tuple[list[float], NDArray[np.float32]]:
        """losses_S and logits_SNZ after 0, 1, … steps on all folds but the row's own."""
        num_rows, num_logits = self._rows.num_rows, len(self._tasks.logit_names)
        logits_SNZ = np.empty((num_steps + 1, num_rows, num_logits), np.float32)
        for fold in range(NUM_FOLDS):
            held = self._rows.batch(np.flatnonzero(self.fold_N == fold))
            for step in self.learn(np.flatnonzero(self.fold_N != fold), num_steps):
                logits_SNZ[step, self.fold_N == fold] = self.logits(held).numpy()
        return [self.loss(torch.from_numpy(logits_NZ), self._all) for logits_NZ in logits_SNZ], logits_SNZ

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """logits_BZ of the model as it is, as it would serve."""
        was_training = self._model.training
        logits_BZ: Tensor = self._model.eval().ranker(batch).logits_BZ
        self._model.train(was_training)
        return logits_BZ

    @torch.no_grad()
    def loss(self, logits_BZ: Tensor, batch: Batch) -> float:
        """The mean loss of some rows, by the weights of the tasks that are learned."""
        tasks = self._tasks
        losses_BT = tasks.row_losses(logits_BZ, *tasks.targets(batch.labels_BL), batch.groups_B)
        return float(self._model.weighting(tasks.losses(losses_BT) / self._model.ranker.loss_units()))

    @torch.no_grad()
    def _begin(self, labels_BL: Tensor) -> None:
        """Where new tasks begin, by the rows that are learned from."""
        starts = self._tasks.starts(self._tasks.label_sums(labels_BL))
        for place in self._new_logits:
            self._model.ranker.start_T[place] = starts[place].logit
            self._model.ranker.unit_T[place] = starts[place].unit


def _folds(batch: Batch, *, seed: int) -> Rows:
    """fold_N: parts of about one size; the rows of a group are in one.

    Raises:
        DataError: there are too few rows or groups.
    """
    groups = np.arange(batch.num_rows) if batch.groups_B is None else batch.groups_B.numpy()
    names, group_N = np.unique(groups, return_inverse=True)
    if len(names) < 2 * NUM_FOLDS:
        what = "rows" if batch.groups_B is None else "groups (inputs.group)"
        raise DataError(
            f"the data to adapt to hold {len(names)} {what}; {2 * NUM_FOLDS} at least are needed, for parts of them "
            "are held back in turn: give more"
        )
    return (np.random.default_rng(seed).permutation(len(names)) % NUM_FOLDS)[group_N]


def _check_labels(weights_NT: Tensor, tasks: TaskSet, learned: Sequence[str], *, are_new: bool) -> None:
    missing = [name for name in learned if not weights_NT[:, tasks.names.index(name)].any()]
    if missing and (are_new or len(missing) == len(learned)):
        raise DataError(
            f"no row of the data to adapt to has a label of {', '.join(missing)}; give rows whose label columns are "
            "filled"
        )
    if missing:
        _logger.warning("no row to adapt to has a label of %s, which learns nothing of its own", ", ".join(missing))


def _new_tasks(derivation: Derivation, source: str) -> tuple[str, ...]:
    """Tasks that the overrides add.

    Raises:
        ConfigError: they change what the model is.
    """
    before, now = Derivation.of(derivation.bundle, cache_dir=derivation.cache_dir).config, derivation.config
    changed = [section for section in ("inputs", "model") if getattr(before, section) != getattr(now, section)]
    for name, task in before.tasks.items():
        mine, theirs = (one.model_dump(exclude=LEARNING_KEYS) for one in (now.tasks[name], task))
        changed += [] if mine == theirs else [f"tasks.{name}"]
    if changed:
        raise ConfigError(
            f"{', '.join(changed)} would be another than in {source}, and few rows cannot teach it; adapt takes "
            "adaptation, data, evaluation and new tasks, and train --warm-start any change"
        )
    return tuple(name for name in now.tasks if name not in before.tasks)


def _measurable(derivation: Derivation, new_tasks: Collection[str]) -> ExperimentConfig:
    """The config, without a test split that has no labels of the new tasks."""
    config = derivation.config
    if not (new_tasks and config.data.test):
        return config
    stream = derivation.stream("test")
    missing = [label.column for label in derivation.encoder.labels if label.column not in stream.arrow_schema.names]
    if not missing:
        return config
    _logger.warning(
        "the test split has no column %s: nothing is measured there; name files that have it, data.test=…",
        ", ".join(dict.fromkeys(missing)),
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"test": ()})})
