"""Lineage: which model another one was made from, and how; it travels in the bundle."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from recmoe.errors import BundleError
from recmoe.export.contents import LINEAGE
from recmoe.json_document import checked, read_object


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from that was made from another one."""

    made_by: str
    """The command: distil, upcycle, prune-experts, moefy, quantize, metalearn or adapt."""
    source: str
    """What the other model was asked for by."""
    digest: str
    """Of its bundle."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Further models that it was made from, such as more teachers: the digest of each by what it was asked for by."""

    def tags(self) -> dict[str, str]:
        """What runs and versions are found by."""
        return {
            "recmoe.made_by": self.made_by,
            "recmoe.made_from": ", ".join([self.source, *self.others]),
            "recmoe.made_from_digest": ", ".join([self.digest, *self.others.values()]),
        }

    def write(self, directory: Path) -> None:
        """Keep it in a bundle."""
        (directory / LINEAGE).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> "Lineage | None":
        """That of a bundle; None where its model was made from none.

        Raises:
            BundleError: it cannot be read.
        """
        path = directory / LINEAGE
        if not path.exists():
            return None
        try:
            return checked(_LINEAGE, read_object(path.read_bytes()))
        except ValueError as error:
            raise BundleError(f"{path} cannot be read: {error}; export the bundle again") from error


_LINEAGE = TypeAdapter(Lineage)
