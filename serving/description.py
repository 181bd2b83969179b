"""description: the model in use, and what a request may hold, as the API tells it."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from recmoe.ranking.ranker import Ranker
from serving.models.holder import ServedModels
from serving.models.refusal import Refusal, Role


class ServedTask(BaseModel):
    """A task of the model."""

    name: str
    kind: str
    """``binary``: a probability; ``regression``: a value in the label's unit."""
    space: str
    """Rows it is about: ``all``, or those whose label of this name is 1."""


class ServedModel(BaseModel):
    """The model in use, and what a request may hold."""

    name: str
    version: str | None
    digest: str
    created_at: str
    tasks: list[ServedTask]
    scores: dict[str, str]
    """Formulas by name."""
    default_score: str
    columns: dict[str, dict[str, str]]
    """Types of the columns by name, for user, context and item."""
    role: Role = "champion"
    """``champion``: it answers; ``challenger``: it answers a share of the users; ``shadow``: it is only compared;
    ``light``: it answers what the others would answer too late."""
    refused: list[Refusal] = []
    """Versions that an alias names and that are not used: that of the role, and with the champion those of roles that
    no model has."""
    warnings: list[str] = []
    """Tasks whose mean prediction is out of its band, of the champion."""


class RefusedVersion(BaseModel):
    """A version that an alias names and that is not used; /v1/models says why."""

    role: Role
    version: str


class Readiness(BaseModel):
    """The answer to a probe."""

    status: Literal["ready"] = "ready"
    digest: str
    refused: list[RefusedVersion]
    warnings: list[str]
    """As /v1/models has them; with warnings it is ready all the same."""
    light: str | None
    """Version that ranks what would be late; null where such requests are refused."""


def readiness(models: ServedModels, warnings: list[str]) -> Readiness:
    """Whether new requests are welcome; NotReadyError where they are not."""
    champion = models.get_for_new()
    refused = [RefusedVersion(role=one.role, version=one.version) for one in list(models.refused.values())]
    lighter = models.lighter
    return Readiness(
        digest=champion.info.digest,
        refused=refused,
        warnings=warnings,
        light=None if lighter is None else lighter.info.version,
    )


def describe_all(models: ServedModels, warnings: list[str]) -> list[ServedModel]:
    """The models in use, the champion first, which is warned of; NotReadyError while there is none."""
    models.get()
    in_use = dict(models.by_role())
    refused = [(one.role if one.role in in_use else "champion", one) for one in list(models.refused.values())]
    described = [
        describe(ranker, role=role, refused=[one for owner, one in refused if owner == role])
        for role, ranker in in_use.items()
    ]
    described[0].warnings = warnings
    return described


def describe(ranker: Ranker, *, role: Role = "champion", refused: Sequence[Refusal] = ()) -> ServedModel:
    """The model of a ranker."""
    tasks = ranker.bundle.tasks
    return ServedModel(
        name=ranker.info.name,
        version=ranker.info.version,
        digest=ranker.info.digest,
        created_at=ranker.bundle.created_at,
        tasks=[ServedTask(name=name, kind=tasks.kinds[name], space=tasks.spaces[name]) for name in tasks.names],
        scores={name: formula.text for name, formula in ranker.scores.formulas.items()},
        default_score=ranker.scores.default,
        columns={
            side: {name: str(column.type) for name, column in columns.items()}
            for side, columns in ranker.request_columns.items()
        },
        role=role,
        refused=list(refused),
    )
