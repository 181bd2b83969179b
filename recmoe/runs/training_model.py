"""build_training_model(): the one assembly of a run's model, with its loss, before it is placed."""

import torch

from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import TrainingModel, build_model
from recmoe.runs.facts import RunFacts
from recmoe.tasks.funnel import TaskSet


def build_training_model(
    config: ExperimentConfig, *, encoder: FeatureEncoder, tasks: TaskSet, facts: RunFacts, rank: int
) -> TrainingModel:
    """The model that a run trains, at its start: every task predicts its base rate.

    Seeds torch's generator: equal weights in every process, for the dense part is replicated; then, for dropout,
    another sequence in each. Ids are hidden by draws of their own, which are other ones in each process, too.
    """
    torch.manual_seed(config.seed)
    ranker = build_model(
        layout=encoder.layout,
        tasks=tasks,
        config=config.model,
        tables=lambda layout: config.tables.build(layout=layout, seed=config.seed),
    )
    ranker.begin(facts.starts)
    weighting = config.model.weighting.build(
        weights=[tasks.weights[name] for name in tasks.names],
        outputs=[tasks.loss_kinds[name] for name in tasks.names],
    )
    torch.manual_seed(config.seed + 1 + rank)
    return TrainingModel(
        ranker=ranker,
        weighting=weighting,
        balance=config.model.balance,
        unknown_shares=config.model.unknown_shares([key.name for key in encoder.layout.sparse], facts.unknown_shares),
        seed=config.seed + rank,
    )
