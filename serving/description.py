"""description: the model in use, and what a request may hold, as the API tells it."""

from pydantic import BaseModel

from recmoe.ranking.ranker import Ranker


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


def describe(ranker: Ranker) -> ServedModel:
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
    )
