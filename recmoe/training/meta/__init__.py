"""Ways to a start from which a few steps learn a domain; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.training.meta.fomaml import FomamlConfig
from recmoe.training.meta.reptile import ReptileConfig
from recmoe.training.meta.rule import Domain, MetaRule

MetaConfig = Annotated[ReptileConfig | FomamlConfig, Field(discriminator="kind")]

__all__ = ["Domain", "FomamlConfig", "MetaConfig", "MetaRule", "ReptileConfig"]
