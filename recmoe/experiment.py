"""ExperimentConfig: the whole run as one typed tree, and the checks between its sections."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pydantic import NonNegativeInt

from recmoe.config import Config, config_from_dict, load_config
from recmoe.data.loader import DataConfig
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import ConfigError
from recmoe.evaluation.evaluate import EvaluationConfig
from recmoe.evaluation.metrics import metric_best
from recmoe.evaluation.skill import SCORE
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema
from recmoe.json_document import read_object
from recmoe.model import ModelConfig
from recmoe.ranking.score import RankingConfig
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.problems import task_problems
from recmoe.tasks.spaces import outcome_columns
from recmoe.tasks.stored import with_stored_tasks
from recmoe.tracking.tracker import TrackingConfig
from recmoe.training.adaptation import AdaptationConfig
from recmoe.training.loop import TrainingConfig


class ExperimentConfig(Config):
    """One run: from the log to the model that serves."""

    name: str
    """Name of the run, of its MLflow experiment's run and of the registered model."""
    seed: NonNegativeInt = 0
    """Seed of initial weights, of the order of rows and of the bootstrap."""
    data: DataConfig
    """Where the log is."""
    inputs: FeatureSchema
    """What of it the model reads."""
    tasks: dict[str, TaskConfig]
    """What it predicts."""
    model: ModelConfig = ModelConfig()
    """How tasks share what they learn."""
    tables: TablesConfig = TablesConfig()
    """Embedding tables: back end, placement, optimizer."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""
    adaptation: AdaptationConfig = AdaptationConfig()
    """How the finished model learns a new domain or task from few rows."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured, and for which slices of the rows."""
    ranking: RankingConfig = RankingConfig()
    """Formulas that turn predictions into the score that candidates are sorted by."""
    tracking: TrackingConfig = TrackingConfig()
    """Where the run is recorded."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together between sections, as (key path, message)."""
        found = list(task_problems(self.tasks))
        yield from ((f"tasks.{path}" if path else "tasks", message) for path, message in found)
        if found:
            return
        yield from self._group_problems()
        yield from self._leaks()
        yield from self._position_problems()
        yield from self._pretraining_problems()
        yield from self._stopping_problems()
        yield from self._architecture_problems()
        if self.training.experts == "over_workers" and getattr(self.model.architecture, "mixes", None) == "weights":
            yield (
                "training.experts",
                "over_workers sends rows to experts, and model.architecture.mixes: weights merges all experts for "
                "every row; drop one of both",
            )
        yield from self._width_problems()
        yield from ((f"ranking.{path}", message) for path, message in self.ranking.task_problems(list(self.tasks)))

    def _group_problems(self) -> Iterator[tuple[str, str]]:
        """Tasks that compare the rows of a list, where no column says what a list is."""
        for name, task in self.tasks.items():
            if task.needs_groups and self.inputs.group is None:
                yield f"tasks.{name}", "compares the rows of a list; name the column of the list in inputs.group"
            elif task.needs_groups and self.data.shuffle_block is None:
                yield (
                    "data.shuffle_block",
                    f"task {name} compares the rows of a list, which shuffling row by row would tear apart; set it to "
                    "the rows of some lists, such as 100, and write the rows of a list one after the other",
                )

    def _leaks(self) -> Iterator[tuple[str, str]]:
        """Labels among the features: the model would read the answer."""
        labels = outcome_columns(self.tasks)
        for name, column in self.inputs.raw_columns():
            if column.name in labels:
                yield f"inputs.features.{name}", f"column {column.name} is a label; a feature must not be one"
        for name in self.data.allow_leaks:
            if name not in self.inputs.features:
                yield "data.allow_leaks", self._no_such_feature(name)

    def _no_such_feature(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.inputs.features, n=1)
        return f"no such feature: {name}{f', did you mean {near[0]}?' if near else ''}"

    def _position_problems(self) -> Iterator[tuple[str, str]]:
        """The position among the features: what is served could not do without it."""
        for name, column in self.inputs.raw_columns():
            if self.model.position is not None and column.name == self.model.position.column:
                yield (
                    f"inputs.features.{name}",
                    f"column {column.name} is where the log showed a row, which no request knows; model.position reads "
                    "it in training, and no feature may",
                )

    def hidden_features(self) -> tuple[str, ...]:
        """Features whose ids a pre-training hides and guesses."""
        pretraining = self.model.pretraining
        if pretraining is not None and pretraining.features:
            return tuple(dict.fromkeys(pretraining.features))
        return tuple(name for name in self.inputs.features if self._hiding_problem(name) is None)

    def _pretraining_problems(self) -> Iterator[tuple[str, str]]:
        pretraining = self.model.pretraining
        if pretraining is None:
            return
        for name in dict.fromkeys(pretraining.features):
            problem = self._hiding_problem(name) if name in self.inputs.features else self._no_such_feature(name)
            if problem is not None:
                yield "model.pretraining.features", problem
        if not self.hidden_features():
            yield (
                "model.pretraining",
                "there is no feature to hide: none has one id a row in a column that no other feature reads",
            )

    def _hiding_problem(self, name: str) -> str | None:
        """Why a feature cannot be hidden, if it cannot."""
        columns = self.inputs.features[name].raw_columns(name)
        if [column.holds for column in columns] != ["id"]:
            return f"{name} has not one id a row; name features of kind id"
        others = [other for other, column in self.inputs.raw_columns() if column.name == columns[0].name]
        others.remove(name)
        return f"{others[0]} reads column {columns[0].name} too, and would tell what is hidden" if others else None

    def _stopping_problems(self) -> Iterator[tuple[str, str]]:
        stopping = self.training.early_stopping
        if stopping is None:
            return
        path = "training.early_stopping.metric"
        if not self.data.validation:
            yield "data.validation", "early stopping needs a validation split"
        if stopping.metric == SCORE:
            return
        metrics = self.evaluation.metric_names(self.tasks, has_groups=self.inputs.group is not None)
        usable = [name for name in metrics if metric_best(name) in ("highest", "lowest")]
        if stopping.metric in metrics and stopping.metric not in usable:
            where = "at 1" if metric_best(stopping.metric) == "one" else "at its level"
            yield (
                path,
                f"{stopping.metric} is best {where}, neither high nor low; choose one of {', '.join(usable)}",
            )
        elif stopping.metric not in metrics:
            near = difflib.get_close_matches(stopping.metric, metrics, n=1, cutoff=0.3)
            hint = f", did you mean {near[0]}?" if near else "."
            yield path, f"no such metric: {stopping.metric}{hint} There are: {', '.join([SCORE, *usable])}"

    def _architecture_problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit the architecture; groups of features that do not exist."""
        for group, features in self.model.groups.items():
            for name in features:
                if name not in self.inputs.features:
                    yield f"model.groups.{group}", self._no_such_feature(name)
        for key, feature in {**self.model.id_features(), **self.model.balance_features()}.items():
            yield from self.id_problems(f"model.{key}", feature)
        yield from ((f"model.{key}", problem) for key, problem in self.model.task_problems(self.task_set()))

    def id_problems(self, path: str, feature: str | None) -> Iterator[tuple[str, str]]:
        """Where a feature with one id a row has to be named, and is not, as (key path, message)."""
        if feature is None:
            yield path, "name a feature of kind id"
        elif feature not in self.inputs.features:
            yield path, self._no_such_feature(feature)
        elif [column.holds for column in self.inputs.features[feature].raw_columns(feature)] != ["id"]:
            yield path, f"{feature} has not one id a row; name a feature of kind id"

    def _width_problems(self) -> Iterator[tuple[str, str]]:
        """Table widths that the back end cannot do."""
        told = set()
        for name, feature in self.inputs.features.items():
            for key, width in feature.widths().items():
                path = "inputs.width" if width is None else f"inputs.features.{name}.{key}"
                problem = self.tables.width_problem(width or self.inputs.width)
                if problem is not None and path not in told:
                    told.add(path)
                    yield path, problem

    def learning_tasks(self) -> Self:
        """Itself; ConfigError for a pre-training, which leaves no model that predicts tasks."""
        if self.model.pretraining is not None:
            raise ConfigError(
                "model.pretraining is set: such a run reads no labels and leaves no bundle; give the config to recmoe "
                "pretrain, or drop the section"
            )
        return self

    def task_set(self) -> TaskSet:
        """The tasks, ready for a model."""
        return TaskSet(self.tasks)

    def label_columns(self) -> tuple[LabelColumn, ...]:
        """What the encoder reads beside features, in the order of ``labels_BL``."""
        return self.model.label_columns(self.task_set())


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read a config file with what it extends and overrides like ``training.epochs=3``.

    Raises:
        ConfigError: everything that is wrong with it, each with key and file:line.
    """
    return load_config(ExperimentConfig, path, overrides)


def experiment_from_json(text: str, *, source: str = "config.json") -> ExperimentConfig:
    """The config that a run or a bundle keeps as JSON; ``source`` names it in errors.

    Raises:
        ConfigError: it cannot be read, or does not fit.
    """
    try:
        stored = read_object(text)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}; copy the file again") from error
    return config_from_dict(ExperimentConfig, with_stored_tasks(stored), source=source)
