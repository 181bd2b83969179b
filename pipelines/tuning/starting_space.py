"""starting_space(): what is searched where nobody says what, around the values of the config."""

from typing import Any

from pipelines.tuning.dimension import Choices, Dimension, Range
from recmoe.config import dump_config
from recmoe.experiment import ExperimentConfig

KINDS = ("shared_bottom", "mmoe", "ple")
"""Ways to share experts that are tried beside the config's own."""
LARGEST_DROPOUT = 0.5


def starting_space(config: ExperimentConfig) -> dict[str, Dimension]:
    """Dimensions around the config's own values, each of which a search could draw."""
    training, model = config.training, config.model
    rates = {
        "training.dense_optimizer.lr": training.dense_optimizer.lr,
        "tables.optimizer.lr": config.tables.optimizer.lr,
    }
    space: dict[str, Dimension] = {key: Range(low=lr / 10, high=lr * 10, log=True) for key, lr in rates.items()}
    decay = training.dense_optimizer.weight_decay
    space["training.dense_optimizer.weight_decay"] = Choices(choices=_with(decay, [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]))
    space["training.batch_size"] = Choices(choices=_scaled(training.batch_size, (0.25, 0.5, 1, 2, 4)))
    space["inputs.width"] = Choices(choices=_with(config.inputs.width, [4, 8, 16, 32]))
    space["model.unknown_share"] = Choices(choices=_with(model.unknown_share, [0.0, 0.01, 0.03, 0.1]))
    return space | _architecture_space(config)


def _architecture_space(config: ExperimentConfig) -> dict[str, Dimension]:
    """Which architecture, and how large its experts are; every kind has keys of its own."""
    own: dict[str, Any] = dump_config(config.model.architecture)
    hidden = own.get("expert_hidden") or own["hidden"]
    sizes = Choices(choices=[_times(hidden, factor) for factor in (0.5, 1, 2)])
    counts = _scaled(own.get("num_experts", 4), (0.5, 1, 2))
    section = "model.architecture"
    return {
        f"{section}.kind": Choices(choices=_with(own["kind"], list(KINDS))),
        f"{section}.expert_hidden": sizes,
        f"{section}.hidden": sizes,
        f"{section}.num_experts": Choices(choices=counts),
        f"{section}.dropout": Range(low=0.0, high=max(LARGEST_DROPOUT, own["dropout"])),
    }


def _with(own: Any, others: list[Any]) -> list[Any]:
    """Some values and the config's own, each once."""
    if isinstance(own, str):
        return list(dict.fromkeys([own, *others]))
    return sorted({own, *others})


def _scaled(value: int, factors: tuple[float, ...]) -> list[int]:
    return sorted({max(1, int(value * factor)) for factor in factors})


def _times(widths: list[int], factor: float) -> list[int]:
    return [max(1, int(width * factor)) for width in widths]
