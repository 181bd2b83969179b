"""model_at_start(): what a run trains, before its first step and before it is placed."""

from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import PretrainingModel, TrainingModel, build_pretraining_model, build_training_model
from recmoe.runs.facts import RunFacts
from recmoe.runs.folder import RunFolder
from recmoe.runs.teacher import taught_tasks


def model_at_start(
    config: ExperimentConfig, folder: RunFolder, encoder: FeatureEncoder, *, rank: int
) -> TrainingModel | PretrainingModel:
    """The model of a prepared run: with the loss of its tasks around it, or with that of hidden ids.

    Args:
        rank: of this process.
    """
    if config.model.pretraining is not None:
        return build_pretraining_model(
            layout=encoder.layout,
            tasks=config.task_set(),
            config=config.model,
            tables=lambda layout: config.tables.build(layout=layout, seed=config.seed),
            features=config.hidden_features(),
            seed=config.seed,
            rank=rank,
        )
    facts = RunFacts.read(folder)
    return build_training_model(
        layout=encoder.layout,
        tasks=config.task_set(),
        config=config.model,
        tables=lambda layout: config.tables.build(layout=layout, seed=config.seed),
        starts=facts.starts,
        unknown_shares=facts.unknown_shares,
        taught=taught_tasks(folder),
        seed=config.seed,
        rank=rank,
    )
