"""What a user of recmoe can get wrong, and what the message tells them to do.

    RecmoeError
    ├── ConfigError        a key, a value or a combination in a config or an override
    ├── SchemaError        a feature, a vocabulary, an encoding, a column's type
    ├── DataError          a file, a row, a label, an empty split
    ├── ShardingError      a placement of tables that the device or optimizer cannot do
    ├── TrainingError      a run that cannot start, go on or be resumed
    ├── CheckpointError    a checkpoint that is damaged, uncommitted or of another model
    ├── EvaluationError    a metric or a report that cannot be computed
    ├── BundleError        a model bundle that is damaged, or whose scores differ
    ├── RegistryError      a registry that does not answer, an unknown version or alias
    ├── RequestError       a ranking request; knows the field at fault
    ├── StoreError         a store of items or users that does not answer
    ├── ServingError       a server that cannot start or does not answer
    │   └── CallError      a client's call that brought no answer; knows the HTTP status
    │       └── DeadlineError  a call whose time was up
    └── StackError         packages that are missing or do not fit together

Errors of a programmer are assertions, not part of this tree.
"""

from typing import Literal


class RecmoeError(Exception):
    """Base of all errors that a user can mend; the message says how."""


class ConfigError(RecmoeError):
    """A key, a value or a combination in a config or an override."""


class SchemaError(RecmoeError):
    """A feature, a vocabulary, an encoding or a column's type."""


class DataError(RecmoeError):
    """A file, a row, a label or an empty split."""


class ShardingError(RecmoeError):
    """A placement of tables that the device or the optimizer cannot do."""


class TrainingError(RecmoeError):
    """A run that cannot start, go on or be resumed."""


class CheckpointError(RecmoeError):
    """A checkpoint that is damaged, uncommitted or of another model."""


class EvaluationError(RecmoeError):
    """A metric or a report that cannot be computed."""


class BundleError(RecmoeError):
    """A model bundle that is damaged, or whose scores differ."""


class RegistryError(RecmoeError):
    """A registry that does not answer, or an unknown version or alias."""


class RequestError(RecmoeError):
    """A ranking request that cannot be served; ``field`` names what is at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class StoreError(RecmoeError):
    """A store of items or users that does not answer, or that is being written by another process; later it may do.

    Where ids were looked up, ``side`` says whose, and ``num_ids`` how many.
    """

    def __init__(self, message: str, *, side: Literal["item", "user"] | None = None, num_ids: int = 0) -> None:
        super().__init__(message)
        self.side, self.num_ids = side, num_ids


class ServingError(RecmoeError):
    """A server that cannot start or does not answer."""


class CallError(ServingError):
    """A client's call that brought no answer; ``status`` is what HTTP says of it, None where nothing came."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DeadlineError(CallError):
    """A call whose time was up before its answer had come, by the client's clock or by the server's."""


class StackError(RecmoeError):
    """Packages that are missing or do not fit together."""
