"""The trunks; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.architectures.trunks.attention_heads import AttentionHeadsConfig
from recmoe.architectures.trunks.none import NoTrunkConfig
from recmoe.architectures.trunks.rank_mixer import RankMixerConfig
from recmoe.plugins import TRUNKS, Plugins

TrunkConfig = Annotated[
    NoTrunkConfig | RankMixerConfig | AttentionHeadsConfig, Field(discriminator="kind"), Plugins(TRUNKS)
]

__all__ = ["NoTrunkConfig", "TrunkConfig"]
