import json
import os
import subprocess
import sys

import pytest

from recmoe import stack
from recmoe.stack import Finding, installed_versions, package_findings, probe_stack, stack_findings

FITTING = {"python": "3.11.9", "torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}


def problems(versions: dict[str, str], *, has_gpu: bool = False) -> list[Finding]:
    return [finding for finding in stack_findings(versions, has_gpu=has_gpu) if finding.level != "ok"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["passive", "1000"]),
        ({"GOMP_SPINCOUNT": "5"}, ["passive", "5"]),
        ({"OMP_WAIT_POLICY": "active"}, ["active", None]),
    ],
)
def test_threads_sleep_soon_unless_the_environment_says_otherwise(
    given: dict[str, str], expected: list[str | None]
) -> None:
    names = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    code = f"import os, recmoe, json; print(json.dumps([os.environ.get(name) for name in {names}]))"
    environment = {name: value for name, value in os.environ.items() if name not in names} | given

    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout

    assert json.loads(output) == expected


def test_versions_that_fit_together_are_fine() -> None:
    found = stack_findings(FITTING, has_gpu=False)

    assert [finding.level for finding in found] == ["ok", "ok"]
    assert found[1].message == "torch 2.13.0+cpu, torchrec 1.8.0, fbgemm-gpu-cpu 1.8.0 fit together"


def test_this_environment_fits_or_the_finding_says_why() -> None:
    versions = installed_versions()

    found = problems(versions)

    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert not [finding for finding in found if finding.level == "broken"]


@pytest.mark.parametrize(
    ("changes", "message", "remedy"),
    [
        ({"python": "3.10.1"}, "3.10.1 is too old", "use Python 3.11 or later"),
        ({"torch": None}, "torch is not installed", "requirements/cpu.lock"),
        (
            {"torch": "2.12.1+cpu"},
            "torch 2.12.1+cpu, torchrec 1.8.0, fbgemm-gpu-cpu 1.8.0 do not fit together",
            "pip install --no-deps torch==2.13.0",
        ),
        (
            {"torchrec": "1.9.0", "fbgemm-gpu-cpu": "1.7.0"},
            "torch 2.13.0+cpu, torchrec 1.9.0, fbgemm-gpu-cpu 1.7.0 do not fit together",
            "pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0",
        ),
        (
            {"fbgemm-gpu": "1.8.0"},
            "fbgemm-gpu and fbgemm-gpu-cpu are both installed",
            "pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu && pip install --no-deps fbgemm-gpu-cpu==1.8.0",
        ),
        (
            {"fbgemm-gpu-cpu": None, "fbgemm-gpu": "1.8.0"},
            "fbgemm-gpu does not import beside torch 2.13.0+cpu, which is built without CUDA",
            "pip uninstall -y fbgemm-gpu && pip install --no-deps fbgemm-gpu-cpu==1.8.0",
        ),
        (
            {"fbgemm-gpu-cpu": None},
            "torchrec 1.8.0 does not import without fbgemm",
            "pip install --no-deps fbgemm-gpu-cpu==1.8.0",
        ),
        (
            {"torchrec": None},
            "fbgemm-gpu-cpu is installed and torchrec is not",
            "pip install --no-deps torchrec==1.8.0",
        ),
    ],
)
def test_packages_that_do_not_fit_are_broken_and_the_remedy_is_a_command(
    changes: dict[str, str | None], message: str, remedy: str
) -> None:
    versions = {name: version for name, version in {**FITTING, **changes}.items() if version is not None}

    found = [finding for finding in problems(versions) if message in finding.message]

    assert [finding.level for finding in found] == ["broken"]
    assert remedy in found[0].remedy


def test_torch_alone_is_a_warning() -> None:
    found = problems({"python": "3.12.0", "torch": "2.13.0"})

    assert [(finding.level, finding.message) for finding in found] == [
        ("warning", "torch 2.13.0 without torchrec: tables are plain PyTorch, in one process")
    ]


def test_cpu_wheel_beside_a_gpu_is_a_warning() -> None:
    found = problems({**FITTING, "torch": "2.13.0"}, has_gpu=True)

    assert [(finding.level, finding.message) for finding in found] == [
        ("warning", "a GPU is there, and fbgemm-gpu-cpu keeps the tables off it")
    ]


def test_absent_packages_name_what_needs_them() -> None:
    found = package_findings({"numpy": "2.0", "pandas": "3.1", "pydantic": "2.14", "safetensors": "0.8", "ray": "2.60"})

    assert ("ok", "numpy 2.0, pandas 3.1, pydantic 2.14, safetensors 0.8, ray 2.60") in [
        (finding.level, finding.message) for finding in found
    ]
    assert ("broken", "pyarrow is not installed; needed for everything") in [(f.level, f.message) for f in found]
    assert ("warning", "mlflow is not installed; needed for tracking and the registry") in [
        (f.level, f.message) for f in found
    ]


def test_import_that_fails_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "PROBE_TORCH", "print('[[\"A100\", 1024, 8, 0]]', flush=True)")
    monkeypatch.setattr(stack, "PROBE_TORCHREC", "\nraise OSError('undefined symbol: _ZN3c10')")

    gpus, found = probe_stack(has_torchrec=True)

    assert gpus[0].capability == (8, 0)
    assert [(finding.level, finding.message) for finding in found] == [
        ("broken", "torchrec does not import: OSError: undefined symbol: _ZN3c10")
    ]


def test_import_that_ends_the_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "PROBE_TORCH", "import os; os._exit(9)")

    gpus, found = probe_stack(has_torchrec=False)

    assert gpus == ()
    assert found[0].message == "torch does not import: exit code 9"


def test_import_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "PROBE_TORCH", "import time; time.sleep(60)")

    _, found = probe_stack(has_torchrec=False, timeout_s=0.2)

    assert found[0].message == "importing torch takes more than 0.2 s"
