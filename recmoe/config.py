"""Config: typed, frozen, unknown keys refused; load_config: YAML + extends + overrides."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every section of a config file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together although each value is valid, as (key path, message)."""
        return iter(())
