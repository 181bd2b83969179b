"""How threads wait is decided before torch is loaded, or it is said that this came too late."""

import os
import subprocess
import sys

import pytest


def imported(code: str, **environment: str) -> str:
    """What a process says on stderr that runs some imports."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stderr


def test_torch_before_recmoe_is_warned_of_once() -> None:
    said = imported("import sys; sys.modules['torch'] = sys; import recmoe; import recmoe.errors")

    assert said.count("torch was imported before recmoe: its threads wait busily") == 1
    assert "import recmoe first, or set OMP_WAIT_POLICY=passive" in said


@pytest.mark.parametrize(
    ("code", "environment"),
    [
        ("import recmoe; import sys; sys.modules['torch'] = sys", {}),
        ("import sys; sys.modules['torch'] = sys; import recmoe", {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_nothing_is_said_where_the_order_is_right_or_the_environment_decides(
    code: str, environment: dict[str, str]
) -> None:
    assert imported(code, **environment) == ""
