"""Refusal: a version that an alias names and that is not used."""

from typing import Literal

from pydantic import BaseModel

Role = Literal["champion", "challenger", "shadow", "light"]
"""What a model is for: it answers, it answers a share of the users, it is compared, it answers what would be late."""


class Refusal(BaseModel):
    """A version that was not taken, and why."""

    role: Role
    version: str
    reason: str
    at: str
    """UTC, ISO 8601."""
