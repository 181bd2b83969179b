"""Settings of the server: a flag, an environment variable and a key of a file for each."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.cli.serving import serve
from recmoe.errors import ConfigError, ServingError
from recmoe.machine import Machine
from serving.settings import ServeSettings, read_settings
from serving.token import read_tokens


def test_every_setting_is_a_flag_and_has_no_default_of_its_own() -> None:
    parameters = dict(inspect.signature(serve).parameters)

    assert parameters.keys() - {"model", "config"} == set(ServeSettings.model_fields)
    assert {parameter.default for name, parameter in parameters.items() if name != "model"} == {None}


def test_defaults_that_the_help_names_are_those_of_the_settings() -> None:
    shown = {}
    for name, parameter in inspect.signature(serve).parameters.items():
        (option,) = [
            part for part in getattr(parameter.annotation, "__metadata__", ()) if hasattr(part, "show_default")
        ]
        if isinstance(option.show_default, str):
            shown[name] = option.show_default

    defaults = {name: field.default for name, field in ServeSettings.model_fields.items() if field.default is not None}
    assert shown.pop("threads") == "usable cores / workers"
    assert shown == {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in defaults.items()
        if name != "strict_fields"
    }


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 70000\nqueue: 0\nthreads: 0\n")

    result = CliRunner().invoke(
        app,
        ["serve", str(tmp_path), "--config", str(file), "--port", "70001"],
        env={"RECMOE_SERVE_PORT": "70002", "RECMOE_SERVE_QUEUE": "-3"},
    )

    assert isinstance(result.exception, ConfigError)
    lines = str(result.exception).splitlines()
    assert [line.split("  ")[-2:] for line in lines[1:]] == [
        [f"{file}:3", "threads: input should be greater than 0"],
        ["command line", "port: input should be less than or equal to 65535"],
        ["command line", "queue: input should be greater than 0"],
    ]


def test_unknown_key_of_the_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("quue: 5\n")

    with pytest.raises(ConfigError, match=r"serve.yaml:1  quue: unknown key, did you mean queue\?"):
        read_settings(file, {})


@pytest.mark.parametrize(("given", "other"), [("certificate", "key"), ("key", "certificate")])
def test_certificate_and_key_come_together(given: str, other: str) -> None:
    with pytest.raises(ConfigError, match=f"command line  {given}: needs {other} too: TLS takes"):
        read_settings(None, {given: Path("server.pem")})


def test_room_for_requests_holds_the_largest_one() -> None:
    with pytest.raises(ConfigError, match="max_held_bytes: is less than max_body_bytes, 16777216: no such request"):
        read_settings(None, {"max_held_bytes": 1000})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"replicas": 3, "max_replicas": 2}, "max_replicas: is less than replicas, 3"),
        ({"max_replicas": 2}, "max_replicas: needs replicas too, the least that there are"),
        ({"target_requests": 2}, "target_requests: needs replicas too"),
    ],
)
def test_bounds_of_replicas_fit_together(given: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=f"command line  {message}"):
        read_settings(None, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "gpu"}, "device: string should match pattern"),
        (
            {"device": "cuda", "workers": 2},
            "workers: are 2, and each would hold the tables on cuda: serve by one, whose",
        ),
        ({"device": "cuda:1", "replicas": 2}, "replicas: rank on the CPU; drop it, or device cuda:1"),
        ({"batch_candidates": -1}, "batch_candidates: input should be greater than or equal to 0"),
    ],
)
def test_one_process_ranks_on_a_gpu(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"command line  {message}"):
        read_settings(None, given)


def test_there_are_as_many_replicas_at_most_as_at_least_unless_more_are_allowed() -> None:
    assert ServeSettings(replicas=3).most_replicas == 3
    assert ServeSettings(replicas=3, max_replicas=8).most_replicas == 8


def test_stores_in_redis_are_named_without_a_password_and_answer_in_time() -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(None, {"items": "redis://me:secret@cache/0", "users": "redis://cache/x", "deadline_ms": 100})

    text = str(caught.value)
    assert "items: a Redis address with a password in it; give it by the environment variable RECMOE_REDIS_PASS" in text
    assert "users: a Redis address that cannot be read: " in text
    assert "store_timeout_ms: is not less than deadline_ms, 100: no answer would be in time" in text
    assert "secret" not in text


def test_expected_rates_are_text_or_a_mapping_and_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("expected_rates: {ctr: 0.03, cvr: 0.2}\n")

    flags = read_settings(None, {"expected_rates": "ctr=0.03, cvr=0.2"})

    assert flags.expected_rates == read_settings(file, {}).expected_rates == {"ctr": 0.03, "cvr": 0.2}
    assert read_settings(file, {"expected_rates": "training"}).expected_rates == "training"
    assert ServeSettings.model_validate_json(flags.model_dump_json()) == flags


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"expected_rates": "trainig"}, "expected_rates: input should be 'training' or 'baseline'"),
        ({"expected_rates": "ctr=much"}, "expected_rates: input should be a valid number"),
        ({"expected_rates": "ctr=-1"}, "expected_rates: input should be greater than 0"),
        ({"calibration_band": 0.5}, "calibration_band: is 0.5; give a factor above 1, or 0 for no warnings"),
        ({"otlp_endpoint": "collector:4317"}, "otlp_endpoint: is collector:4317; give an address such as http://local"),
    ],
)
def test_what_cannot_be_watched_or_sent_is_named(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"command line  {re.escape(problem)}"):
        read_settings(None, given)


def test_threads_are_the_usable_cores_divided_among_the_workers(tmp_path: Path) -> None:
    cores = Machine.read(tmp_path).usable_cores

    assert ServeSettings().num_threads() == max(1, int(cores))
    assert ServeSettings(workers=1000).num_threads() == 1
    assert ServeSettings(threads=7).num_threads() == 7


@pytest.mark.parametrize(("workers", "threads", "shares"), [(1, 1, False), (2, 1, True), (1, 2, True)])
def test_torch_has_the_cores_to_itself_where_one_request_is_computed_at_a_time(
    workers: int, threads: int, shares: bool
) -> None:
    assert ServeSettings(workers=workers, threads=threads).shares_cores is shares


def test_tokens_are_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\n\n  second \n")

    assert read_tokens(tmp_path / "tokens") == (b"first", b"second")


def test_file_without_tokens_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("\n")

    with pytest.raises(ServingError, match=r"token_file .*tokens holds no token; write one a line"):
        read_tokens(tmp_path / "tokens")
    with pytest.raises(ServingError, match=r"token_file .*absent cannot be read: No such file"):
        read_tokens(tmp_path / "absent")
