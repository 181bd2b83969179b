"""The Dockerfile fits the project; where there is a Docker that can pull, its image is built and serves a model."""

import fnmatch
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recmoe.cli.app import app
from serving.connection import HEALTH
from serving.settings import ServeSettings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "serving" / "Dockerfile"
LOCK = ROOT / "requirements" / "serve.lock"
ENV = re.compile(r"(\w+)=(\S+)")


def instructions() -> list[tuple[str, str]]:
    """Name and rest of each instruction."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def given(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def pinned(lock: Path) -> dict[str, str]:
    """Version by name."""
    return {
        str(canonicalize_name(name)): version
        for name, _, version in (line.partition("==") for line in lock.read_text().split())
    }


def copied() -> list[str]:
    """What is copied from the project."""
    return [source for rest in given("COPY") if "--from" not in rest for source in shlex.split(rest)[:-1]]


def health_command() -> list[str]:
    (check,) = given("HEALTHCHECK")
    command: list[str] = json.loads(check[check.index("CMD ") + 4 :])
    return command


def test_what_is_copied_is_there_and_not_left_out() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    kept = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

    assert "*" in patterns
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


def test_entry_point_is_the_command_that_serves() -> None:
    (entry,), (command,) = given("ENTRYPOINT"), given("CMD")
    program, verb, *flags = [*json.loads(entry), *json.loads(command)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]

    options = {name for parameter in known.params for name in parameter.opts}

    assert program in project["scripts"]
    assert verb == "serve"
    assert {flag for flag in flags if flag.startswith("-")} <= options
    assert len([flag for flag in flags if not flag.startswith("-")]) == 1


def test_variables_are_settings_and_the_port_is_the_one_that_is_exposed() -> None:
    variables = dict(ENV.findall(" ".join(given("ENV"))))
    settings = {
        name.removeprefix("RECMOE_SERVE_").lower(): value
        for name, value in variables.items()
        if name.startswith("RECMOE_")
    }

    assert settings.keys() <= ServeSettings.model_fields.keys()
    assert settings["port"] == given("EXPOSE")[0]
    ServeSettings.model_validate(settings)


def test_last_stage_does_not_run_as_root_and_both_are_of_the_projects_python() -> None:
    (user,) = given("USER")
    names = [name for name, _ in instructions()]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]

    assert user.isdecimal()
    assert int(user) > 0
    assert names.index("USER") > len(names) - 1 - names[::-1].index("FROM")
    assert {rest.split()[0] for rest in given("FROM")} == {f"python:{wanted.removeprefix('>=')}-slim"}


@pytest.mark.parametrize("stack", ["cpu", "cuda"])
def test_lock_is_a_part_of_the_others(stack: str) -> None:
    assert pinned(LOCK).items() <= pinned(ROOT / "requirements" / f"{stack}.lock").items()


def test_lock_is_all_that_a_server_needs_and_no_more() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements" / "serve.in").read_text().splitlines()]
    left, needed = [Requirement(line) for line in lines if line], set()
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in needed:
                needed.add((name, extra))
                found = [Requirement(line) for line in distribution(name).requires or [] if ":" not in line]
                left += [one for one in found if one.marker is None or one.marker.evaluate({"extra": extra})]

    assert {name for name, _ in needed} == pinned(LOCK).keys()
    assert not {"ray", "torchrec", "fbgemm-gpu-cpu", "pytest"} & pinned(LOCK).keys()


def test_torch_is_the_one_of_the_makefile() -> None:
    (torch,) = re.findall(r"torch==\S+", " ".join(given("RUN")))

    assert torch in (ROOT / "Makefile").read_text()


def test_health_check_asks_a_page_that_tells_it(url: str) -> None:
    program, *arguments = health_command()
    assert program == "python"
    assert any(page in arguments[-1] for page in HEALTH)

    def run(port: str) -> int:
        environment = {**os.environ, "RECMOE_SERVE_PORT": port}
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True).returncode

    with socket.create_server(("127.0.0.1", 0)) as listener:
        unused = str(listener.getsockname()[1])

    assert run(url.rpartition(":")[2]) == 0
    assert run(unused) != 0


@pytest.fixture
def docker() -> Iterator[Callable[..., Any]]:
    """Runs Docker; removes the containers that it made."""
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"there is no Docker here: {error}")
    if answer.returncode:
        pytest.skip(f"Docker does not answer: {answer.stderr.strip().splitlines()[-1]}")
    pulled = subprocess.run(["docker", "pull", given("FROM")[0].split()[0]], capture_output=True, text=True)
    if pulled.returncode:
        pytest.skip(f"Docker cannot pull: {pulled.stderr.strip().splitlines()[-1]}")

    def run(*arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    yield run
    for container in run("ps", "-aq", "--filter", "ancestor=recmoe-serve-test").split():
        run("rm", "-f", container)


@pytest.mark.slow
def test_image_serves_a_bundle(docker: Callable[..., Any], bundle_path: Path) -> None:
    docker("build", "-f", "serving/Dockerfile", "-t", "recmoe-serve-test", ".")
    container = docker("run", "-d", "-p", "127.0.0.1::8000", "-v", f"{bundle_path}:/bundle:ro", "recmoe-serve-test")
    address = docker("port", container, "8000").splitlines()[0]

    end_s = time.monotonic() + 120
    while (health := docker("inspect", "-f", "{{.State.Health.Status}}", container)) != "healthy":
        assert time.monotonic() < end_s, f"{health}: {docker('logs', container)}"
        time.sleep(1)

    with urllib.request.urlopen(f"http://{address}/readyz", timeout=60) as answer:
        assert answer.status == 200
    assert docker("exec", container, "id", "-u") == "10001"
