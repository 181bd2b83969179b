"""build_model(), build_training_model(): the only place where the parts of a model are put together."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast

import torch
from torch import nn

from recmoe.architectures.seam import Forkable, Model, Parts
from recmoe.features.layout import InputLayout
from recmoe.model.balance_losses import BalanceTerms
from recmoe.model.config import ModelConfig
from recmoe.model.imitation import Imitation
from recmoe.model.inputs import InputLayer, feature_widths, input_widths, num_values
from recmoe.model.objective import TrainingModel
from recmoe.model.pretraining import PretrainingModel, ReadOut, check_learns_without_labels
from recmoe.model.ranker import MultiTaskRanker
from recmoe.model.row_ids import id_key
from recmoe.moe.balance import balance_terms
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.start import TaskStart

MakeTables = Callable[[InputLayout], nn.Module]
"""Makes the tables of a layout, such as ``PlainTables``."""


def model_layout(layout: InputLayout, *, tasks: TaskSet, config: ModelConfig) -> InputLayout:
    """The layout of a model's tables: that of the encoder, with room for what the model keeps in their rows."""
    rows = layout.with_copies(config.architecture.copies(tasks))
    return config.wide.rows(rows, num_outputs=len(tasks.logit_names))


def build_model(*, layout: InputLayout, tasks: TaskSet, config: ModelConfig, tables: MakeTables) -> MultiTaskRanker:
    """The model of a config; initialised from torch's global generator.

    Args:
        layout: of the encoder.
    """
    layout = model_layout(layout, tasks=tasks, config=config)
    made = tables(layout)
    model = config.assemble(model_parts(layout, tasks=tasks, config=config))
    for term in balance_terms(config.balance).values():
        term.prepare(model)
    wide = config.wide.build(
        num_outputs=len(tasks.logit_names),
        num_shared=num_values(layout, shared=True),
        num_own=num_values(layout, shared=False),
    )
    groups = config.read_groups(feature_widths(layout))
    input_layer = InputLayer(layout=layout, tables=made, wide=wide, groups=groups, ids=_id_features(config))
    return MultiTaskRanker(input_layer=input_layer, model=model, tasks=tasks)


def model_parts(layout: InputLayout, *, tasks: TaskSet, config: ModelConfig) -> Parts:
    """What a model that reads a layout is made for and of."""
    num_rows = {table.name: table.num_rows for table in layout.tables}
    keys = {name: id_key(layout, name) for name in _id_features(config)}
    return Parts(
        widths=input_widths(layout, config.read_groups(feature_widths(layout))),
        tasks=tasks,
        make_tower=lambda width, task: _tower(width, task, tasks=tasks, config=config),
        num_ids={name: num_rows[key.table] for name, key in keys.items() if key is not None},
    )


def _tower(width: int, task: str, *, tasks: TaskSet, config: ModelConfig) -> nn.Module:
    logits = tasks.logits[task]
    if config.pretraining is not None:
        return ReadOut(in_features=width, num_logits=len(logits))
    return config.towers.build(in_features=width, logits=logits)


def _id_features(config: ModelConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in config.id_features().values() if name is not None))


def build_training_model(
    *,
    layout: InputLayout,
    tasks: TaskSet,
    config: ModelConfig,
    tables: MakeTables,
    starts: Sequence[TaskStart] | None = None,
    unknown_shares: Mapping[str, float] | None = None,
    taught: Collection[str] = (),
    seed: int = 0,
    rank: int = 0,
) -> TrainingModel:
    """The model that a run trains, at its start, with its loss around it, before it is placed.

    Seeds torch's generator: equal weights in every process, for the dense part is replicated; then, for dropout,
    another sequence in each. Ids are hidden by draws of their own, which are other ones in each process, too.

    Args:
        layout: of the encoder.
        starts: one per logit; by these every task predicts its base rate.
        unknown_shares: by sparse key, the share of ids in the validation split that training has not seen.
        taught: tasks that a teacher knows too, whose batches hold what it says.
        seed: of the weights.
        rank: of this process.
    """
    torch.manual_seed(seed)
    ranker = build_model(layout=layout, tasks=tasks, config=config, tables=tables)
    if starts is not None:
        ranker.begin(starts)
    fork = config.balancing.build(num_tasks=len(tasks.tower_names))
    if fork is not None:
        cast(Forkable, ranker.model).fork_shared(fork)
    # A loss that one of the model's own stands for takes no part: a 0 in its place would still be weighed.
    replaced = cast(Model, ranker.model).replaces
    weighting = config.weighting.build(
        weights=[0.0 if name in replaced else tasks.weights[name] for name in tasks.names],
        outputs=[tasks.loss_kinds[name] for name in tasks.names],
        fork=fork,
    )
    known = [name for name in tasks.names if name in taught and name not in replaced]
    position = None if config.position is None else config.position.build(tasks)
    torch.manual_seed(seed + 1 + rank)
    return TrainingModel(
        ranker=ranker,
        weighting=weighting,
        fork=fork,
        position=position,
        imitation=Imitation(tasks, known, config.distillation) if known else None,
        balance=_balance(config, tasks),
        balance_features=[name for name in config.balance_features().values() if name is not None],
        unknown_shares=config.unknown_shares([key.name for key in layout.sparse], unknown_shares or {}),
        seed=seed + rank,
    )


def build_pretraining_model(
    *,
    layout: InputLayout,
    tasks: TaskSet,
    config: ModelConfig,
    tables: MakeTables,
    features: Sequence[str],
    seed: int = 0,
    rank: int = 0,
) -> PretrainingModel:
    """The model that a pre-training steps, at its start; as ``build_training_model``, without anything of labels.

    Args:
        features: whose ids are hidden.

    Raises:
        ConfigError: an architecture or gates that cannot learn without labels.
    """
    assert config.pretraining is not None
    torch.manual_seed(seed)
    ranker = build_model(layout=layout, tasks=tasks, config=config, tables=tables)
    check_learns_without_labels(ranker.model)
    model = PretrainingModel(
        ranker=ranker,
        layout=layout,
        features=features,
        config=config.pretraining,
        balance=_balance(config, tasks),
        balance_features=[name for name in config.balance_features().values() if name is not None],
        seed=seed + rank,
    )
    torch.manual_seed(seed + 1 + rank)
    return model


def _balance(config: ModelConfig, tasks: TaskSet) -> BalanceTerms:
    return {
        name: (term.factor, term.build(task_names=tasks.tower_names))
        for name, term in balance_terms(config.balance).items()
    }
