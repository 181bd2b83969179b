"""The trunks; the union is the registry."""

from typing import Annotated

from recmoe.architectures.trunks.none import NoTrunkConfig
from recmoe.plugins import TRUNKS, Plugins

TrunkConfig = Annotated[NoTrunkConfig, Plugins(TRUNKS)]

__all__ = ["NoTrunkConfig", "TrunkConfig"]
