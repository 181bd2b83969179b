"""What leaves training and enters serving."""

from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.replay import Replay

__all__ = ["ModelBundle", "Replay", "write_bundle"]
