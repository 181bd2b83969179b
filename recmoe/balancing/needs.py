"""needs(): what to install where a rule's package is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from recmoe.errors import StackError


@contextmanager
def needs(package: str, kind: str) -> Iterator[None]:
    """Around the import of a package that not every installation has.

    Args:
        kind: of ``model.balancing``.

    Raises:
        StackError: it is missing, or a package that it needs; with what to install.
    """
    try:
        yield
    except ImportError as error:
        raise StackError(
            f"model.balancing: {kind} needs {package} ({error}); pip install 'recmoe[balancing]'"
        ) from error
