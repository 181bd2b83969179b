"""Names that MLflow takes, and addresses that say no password."""

import logging
from pathlib import Path

import pytest

from recmoe.config import config_from_dict, dump_config
from recmoe.errors import ConfigError, RegistryError
from recmoe.tracking import TrackingConfig
from recmoe.tracking.mlflow_store import MlflowStore
from recmoe.tracking.names import without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:secret@db:5432/runs", "postgresql://db:5432/runs"),
        ("postgresql+psycopg2://ann:se/cr@et@db/runs", "postgresql+psycopg2://db/runs"),
        ("https://token@host/mlflow", "https://host/mlflow"),
        (
            "postgresql://db/runs?user=ann&password=secret&sslmode=require",
            "postgresql://db/runs?user=ann&password=***&sslmode=require",
        ),
        ("cannot reach http://ann:secret@host: timed out", "cannot reach http://host: timed out"),
        ("sqlite:////home/ann@work/runs.db", "sqlite:////home/ann@work/runs.db"),
        ("models:/shop@champion", "models:/shop@champion"),
    ],
)
def test_address_is_shown_without_user_and_password(text: str, shown: str) -> None:
    assert without_password(text) == shown


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:secret@127.0.0.1:1/runs",
        "http://ann:secret@127.0.0.1:1/",
        "nosuchdatabase://ann:secret@db/runs",
        "mysql+nosuchdriver://ann:secret@db/runs",
    ],
)
def test_store_that_does_not_answer_is_named_without_its_password(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(RegistryError, match="MLflow at ") as caught:
        MlflowStore.connect(uri, folder=tmp_path, timeout_s=1.0)

    chain: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__
    assert "secret" not in " ".join([*chain, caplog.text, *capfd.readouterr()])


def test_config_that_is_written_down_has_no_password() -> None:
    config = TrackingConfig(uri="postgresql://ann:secret@db/runs")

    assert config.uri == "postgresql://ann:secret@db/runs"
    assert dump_config(config)["uri"] == "postgresql://db/runs"


@pytest.mark.parametrize("name", ["", " runs", "two\nlines", "x" * 251])
def test_experiment_that_mlflow_would_refuse_is_an_error_of_the_config(name: str) -> None:
    with pytest.raises(ConfigError, match=r"experiment: .* cannot be the name of an experiment: "):
        config_from_dict(TrackingConfig, {"experiment": name})
