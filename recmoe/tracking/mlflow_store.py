"""MlflowStore: a tracking store and registry that has answered, and how it is reached."""

import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

# MLflow reads this when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from recmoe.errors import RegistryError

_SQLITE = "sqlite:///"


class MlflowStore:
    """Where MLflow keeps runs, artifacts and model versions.

    Args:
        uri: tracking URI, of a server or of a database.
        client: a client of it.
    """

    def __init__(self, *, uri: str, client: MlflowClient) -> None:
        self.uri = uri
        self.client = client

    @classmethod
    def connect(cls, uri: str | None, *, folder: Path, timeout_s: float = 10.0) -> "MlflowStore":
        """Reach a store, and make it where it is a SQLite file that is not there yet.

        Args:
            uri: tracking URI; by default the environment's MLFLOW_TRACKING_URI, else ``mlflow.db`` in the folder.
            timeout_s: seconds a server may take to answer.

        Raises:
            RegistryError: no answer, with the URI and what to do.
        """
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{folder.resolve() / 'mlflow.db'}"
        # Each logs a line at INFO for what is not news.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if urlsplit(uri).scheme in ("http", "https"):
            _ask_server(uri, timeout_s)
            # MLflow's own defaults keep trying a server that went away for many minutes.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        with answering(uri):
            database = _sqlite_file(uri)
            if database is None:
                client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            else:
                database.parent.mkdir(parents=True, exist_ok=True)
                # Processes that create the same database at once all fail.
                with FileLock(f"{database}.lock", timeout=60):
                    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
                    client.search_experiments(max_results=1)
        return cls(uri=uri, client=client)

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, made if it is not there."""
        with answering(self.uri):
            database = _sqlite_file(self.uri)
            # Without a server MLflow would put artifacts into the working directory.
            location = None if database is None else (database.parent / "artifacts").as_uri()
            try:
                found = self.client.get_experiment_by_name(name)
                if found is not None:
                    return str(found.experiment_id)
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # Made by another process meanwhile?
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
                return str(found.experiment_id)


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what MLflow raises when its store fails into a RegistryError that names the URI."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegistryError(f"MLflow at {uri}: {reason}") from error


def _ask_server(uri: str, timeout_s: float) -> None:
    """RegistryError if nobody answers at an address."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s):
            return
    except urllib.error.HTTPError:
        # Somebody is there; a proxy in front may refuse this path.
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RegistryError(
            f"MLflow at {uri} does not answer: {reason}; start it, "
            "set MLFLOW_TRACKING_URI (or tracking.uri) to one that runs, or unset it to use a local SQLite file"
        ) from error


def _sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite URI; None for any other."""
    return Path(uri.removeprefix(_SQLITE)).resolve() if uri.startswith(_SQLITE) else None
