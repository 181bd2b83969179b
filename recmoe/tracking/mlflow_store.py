"""MlflowStore: a tracking store and registry that has answered, and how it is reached."""

import errno
import logging
import math
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from recmoe.errors import RegistryError
from recmoe.tracking.names import without_password

_SQLITE = "sqlite:///"
ARTIFACTS = "artifacts"
"""Folder of artifacts beside a SQLite file."""

_TIME_LIMITS = {
    "psycopg2": "connect_timeout",
    "psycopg": "connect_timeout",
    "mysqldb": "connect_timeout",
    "pymysql": "connect_timeout",
    "pyodbc": "timeout",
}
"""What drivers of databases call the seconds that connecting may take."""


class MlflowStore:
    """Where MLflow keeps runs, artifacts and model versions.

    Args:
        uri: tracking URI, of a server or of a database.
        client: a client of it.
    """

    def __init__(self, *, uri: str, client: MlflowClient) -> None:
        self.uri = uri
        self.client = client

    @property
    def shown(self) -> str:
        """The URI as messages show it: without user and password."""
        return without_password(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file; None for a server or another database."""
        return _sqlite_file(self.uri)

    @classmethod
    def connect(cls, uri: str | None, *, folder: Path, timeout_s: float = 10.0) -> "MlflowStore":
        """Reach a store, and make it where it is a SQLite file that is not there yet.

        Args:
            uri: tracking URI; by default the environment's MLFLOW_TRACKING_URI, else ``mlflow.db`` in the folder.
            timeout_s: seconds a server or a database may take to answer.

        Raises:
            RegistryError: no answer, with the URI and what to do.
        """
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{folder.resolve() / 'mlflow.db'}"
        # Each logs a line at INFO for what is not news.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # It logs what it raises, statement and address included; ``answering`` says it in one line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        if urlsplit(uri).scheme in ("http", "https"):
            _ask_server(uri, timeout_s)
            # MLflow's own defaults keep trying a server that went away for many minutes.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        database = _sqlite_file(uri)
        with answering(uri), nullcontext() if database is None else _made_by_one(database):
            if urlsplit(uri).scheme.split("+")[0] in DATABASE_ENGINES:
                _try_database(uri, timeout_s)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            if database is not None:
                client.search_experiments(max_results=1)
        return cls(uri=uri, client=client)

    def page_of(self, run_id: str) -> str:
        """Where a person sees a run among the others of its experiment.

        Raises:
            RegistryError: the store does not know the run, or fails.
        """
        with answering(self.uri):
            experiment = self.client.get_run(run_id).info.experiment_id
        # Without /runs the page opens MLflow's view of language models, which is empty here.
        place = f"#/experiments/{experiment}/runs"
        if urlsplit(self.uri).scheme in ("http", "https"):
            return f"{self.shown.rstrip('/')}/{place}"
        return f"mlflow ui --backend-store-uri {self.shown}, then http://127.0.0.1:5000/{place}"

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, made if it is not there."""
        with answering(self.uri):
            database = _sqlite_file(self.uri)
            # Without a server MLflow would put artifacts into the working directory.
            location = None if database is None else (database.parent / ARTIFACTS).as_uri()
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
        # What MLflow and SQLAlchemy say may hold the address, and a traceback would show it.
        is_clean = without_password(str(error)) == str(error)
        raise RegistryError(f"MLflow at {without_password(uri)}: {reason_of(error)}") from (error if is_clean else None)


def reason_of(error: Exception) -> str:
    """The first line of an error, without passwords."""
    return without_password((str(error).strip() or type(error).__name__).splitlines()[0])


def _ask_server(uri: str, timeout_s: float) -> None:
    """RegistryError if nobody answers at an address."""
    try:
        parts = urlsplit(uri)
        # urllib would take user and password for a part of the host's name.
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=timeout_s):
            return
    except urllib.error.HTTPError:
        # Somebody is there; a proxy in front may refuse this path.
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RegistryError(
            f"MLflow at {without_password(uri)} does not answer: {without_password(str(reason))}; start it, "
            "set MLFLOW_TRACKING_URI (or tracking.uri) to one that runs, or unset it to use a local SQLite file"
        ) from error


def _try_database(uri: str, timeout_s: float) -> None:
    """RegistryError if a database does not let in at the first try: MLflow would try for minutes without a word."""
    # It loads packages that a server's client does without.
    from mlflow.store.db.utils import create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(uri)

    def limit_time(_dialect: object, _record: object, _arguments: object, keywords: dict[str, Any]) -> None:
        if name := _TIME_LIMITS.get(engine.driver):
            keywords.setdefault(name, math.ceil(timeout_s))

    event.listen(engine, "do_connect", limit_time)
    try:
        engine.connect().close()
    except DBAPIError as error:
        # Without its cause: a driver's error may hold the address.
        raise RegistryError(
            f"MLflow at {without_password(uri)} cannot be opened: {reason_of(error.orig or error)}; mend that, "
            "set MLFLOW_TRACKING_URI (or tracking.uri) to another place, or unset it to use a local SQLite file"
        ) from None
    finally:
        engine.dispose()


@contextmanager
def _made_by_one(database: Path) -> Iterator[None]:
    """Hold the lock of a SQLite file, as processes that create it at once would all fail.

    One that is there in a place that cannot be written to is read without it.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock", timeout=60)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not database.exists():
            raise
    try:
        yield
    finally:
        lock.release()


def _sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite URI; None for any other."""
    return Path(uri.removeprefix(_SQLITE)).resolve() if uri.startswith(_SQLITE) else None
