"""Encoders of histories; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.sequence.encoded_history import EncodedHistory, HistoryEncoder
from recmoe.sequence.pooling import MeanHistoryConfig, PooledHistory, SumHistoryConfig
from recmoe.sequence.target_attention import TargetAttention, TargetAttentionConfig
from recmoe.sequence.transformer import HistoryTransformer, TransformerConfig

HistoryEncoderConfig = Annotated[
    MeanHistoryConfig | SumHistoryConfig | TargetAttentionConfig | TransformerConfig, Field(discriminator="kind")
]

__all__ = [
    "EncodedHistory",
    "HistoryEncoder",
    "HistoryEncoderConfig",
    "HistoryTransformer",
    "MeanHistoryConfig",
    "PooledHistory",
    "SumHistoryConfig",
    "TargetAttention",
    "TargetAttentionConfig",
    "TransformerConfig",
]
