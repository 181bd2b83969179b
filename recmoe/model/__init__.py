"""From a batch to predictions: inputs, experts, linear part, towers; and the loss around them in training."""

from recmoe.model.build import build_model, build_pretraining_model, build_training_model, model_layout, model_parts
from recmoe.model.config import ModelConfig
from recmoe.model.inputs import InputLayer, feature_widths, input_order
from recmoe.model.objective import TrainingModel
from recmoe.model.pretraining import PretrainingModel
from recmoe.model.ranker import ModelOutput, MultiTaskRanker
from recmoe.model.wide import LinearWideConfig, NoWideConfig

__all__ = [
    "InputLayer",
    "LinearWideConfig",
    "ModelConfig",
    "ModelOutput",
    "MultiTaskRanker",
    "NoWideConfig",
    "PretrainingModel",
    "TrainingModel",
    "build_model",
    "build_pretraining_model",
    "build_training_model",
    "feature_widths",
    "input_order",
    "model_layout",
    "model_parts",
]
