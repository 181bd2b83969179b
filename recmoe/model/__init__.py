"""From a batch to predictions: inputs, experts, linear part, towers; and the loss around them in training."""

from recmoe.model.config import ModelConfig
from recmoe.model.inputs import InputLayer, Inputs, input_order, input_width
from recmoe.model.ranker import ModelOutput, MultiTaskRanker, TrainingModel, build_model, model_layout
from recmoe.model.wide import LinearWideConfig, NoWideConfig

__all__ = [
    "InputLayer",
    "Inputs",
    "LinearWideConfig",
    "ModelConfig",
    "ModelOutput",
    "MultiTaskRanker",
    "NoWideConfig",
    "TrainingModel",
    "build_model",
    "input_order",
    "input_width",
    "model_layout",
]
