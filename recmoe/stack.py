"""Stack: the installed packages, and whether those that only fit as an exact triple do."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "broken"]

TORCH, TORCHREC, FBGEMM = "2.13.0", "1.8.0", "1.8.0"
"""The versions that fit together; torchrec's own requirements do not say so."""

INSTALL = "pip install --no-deps -r requirements/cpu.lock (on a GPU cuda.lock), as the README says"

NEEDED_FOR = {
    "numpy": "everything",
    "pandas": "notebooks and reports",
    "pyarrow": "everything",
    "pydantic": "everything",
    "safetensors": "checkpoints and bundles",
    "ray": "recmoe train --workers and the pipelines",
    "mlflow": "tracking and the registry",
    "fastapi": "recmoe serve",
    "uvicorn": "recmoe serve",
    "matplotlib": "the plots of reports",
}
"""What does not work without a package; a package that everything needs is broken when absent, others a warning."""

PROBE_TORCH = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
devices = [torch.cuda.get_device_properties(index) for index in range(count)]
print(json.dumps([[d.name, d.total_memory, d.major, d.minor] for d in devices]), flush=True)
"""
PROBE_TORCHREC = """
import torchrec
torch.ops.fbgemm.jagged_2d_to_dense
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    topic: str
    message: str
    remedy: str = ""
    """What to do about it; empty where nothing is to be done."""


@dataclass(frozen=True)
class Gpu:
    """One CUDA device."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


def installed_versions() -> dict[str, str]:
    """Versions of what recmoe uses and is there, and of Python."""
    names = ("recmoe", "torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", *NEEDED_FOR)
    versions = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def stack_findings(versions: Mapping[str, str], *, has_gpu: bool) -> list[Finding]:
    """Whether Python, torch, torchrec and fbgemm fit together.

    Args:
        versions: version by package name, absent packages left out.
        has_gpu: whether torch sees a CUDA device.
    """
    found: list[Finding] = []
    python = tuple(int(part) for part in versions["python"].split(".")[:2])
    if python < (3, 11):
        found.append(Finding("broken", "python", f"{versions['python']} is too old", "use Python 3.11 or later"))
    else:
        found.append(Finding("ok", "python", versions["python"]))
    if "torch" not in versions:
        return [*found, Finding("broken", "torch", "torch is not installed", INSTALL)]
    return found + _triple_findings(versions, has_gpu=has_gpu)


def _triple_findings(versions: Mapping[str, str], *, has_gpu: bool) -> list[Finding]:
    torch, torchrec = versions["torch"], versions.get("torchrec")
    wheels = [name for name in ("fbgemm-gpu", "fbgemm-gpu-cpu") if name in versions]
    if torchrec is None and not wheels:
        message = f"torch {torch} without torchrec: tables are plain PyTorch, in one process"
        return [Finding("warning", "torchrec", message, f"{INSTALL}, torchrec {TORCHREC} among them")]
    if len(wheels) == 2:
        message = "fbgemm-gpu and fbgemm-gpu-cpu are both installed; they overwrite each other's files"
        wheel = "fbgemm-gpu" if has_gpu else "fbgemm-gpu-cpu"
        remedy = f"pip uninstall -y {' '.join(wheels)} && pip install --no-deps {wheel}=={FBGEMM}"
        return [Finding("broken", "fbgemm", message, remedy)]
    if torchrec is None:
        message = f"{wheels[0]} is installed and torchrec is not"
        return [Finding("broken", "torchrec", message, f"pip install --no-deps torchrec=={TORCHREC}")]
    if not wheels:
        wheel = "fbgemm-gpu" if has_gpu else "fbgemm-gpu-cpu"
        message = f"torchrec {torchrec} does not import without fbgemm"
        return [Finding("broken", "fbgemm", message, f"pip install --no-deps {wheel}=={FBGEMM}")]
    wheel = wheels[0]
    if wheel == "fbgemm-gpu" and "+cpu" in torch:
        message = f"fbgemm-gpu does not import beside torch {torch}, which is built without CUDA"
        remedy = f"pip uninstall -y fbgemm-gpu && pip install --no-deps fbgemm-gpu-cpu=={FBGEMM}"
        return [Finding("broken", "fbgemm", message, remedy)]
    wanted = {"torch": TORCH, "torchrec": TORCHREC, wheel: FBGEMM}
    wrong = [name for name, version in wanted.items() if versions[name].split("+")[0] != version]
    shown = ", ".join(f"{name} {versions[name]}" for name in wanted)
    if wrong:
        pins = " ".join(f"{name}=={wanted[name]}" for name in wrong)
        return [Finding("broken", "torch", f"{shown} do not fit together", f"pip install --no-deps {pins}")]
    found = [Finding("ok", "torch", f"{shown} fit together")]
    if wheel == "fbgemm-gpu-cpu" and has_gpu:
        message = "a GPU is there, and fbgemm-gpu-cpu keeps the tables off it"
        remedy = f"pip uninstall -y fbgemm-gpu-cpu && pip install --no-deps fbgemm-gpu=={FBGEMM}"
        found.append(Finding("warning", "fbgemm", message, remedy))
    return found


def probe_stack(*, has_torchrec: bool, timeout_s: float = 300.0) -> tuple[tuple[Gpu, ...], list[Finding]]:
    """Import torch, then torchrec, in a fresh process: a wrong binary may end the process that tries.

    Returns:
        gpus: what torch sees.
        findings: whether the imports work.
    """
    code = PROBE_TORCH + (PROBE_TORCHREC if has_torchrec else "")
    try:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return (), [
            Finding("broken", "import", f"importing torch takes more than {timeout_s:g} s", "is the disk slow?")
        ]
    lines = run.stdout.splitlines()
    gpus = (
        tuple(Gpu(name, memory, (major, minor)) for name, memory, major, minor in json.loads(lines[0])) if lines else ()
    )
    if run.returncode != 0:
        name = "torchrec" if lines else "torch"
        reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return gpus, [Finding("broken", "import", f"{name} does not import: {reason}", INSTALL)]
    return gpus, [
        Finding("ok", "import", "torch, torchrec and fbgemm's operators load" if has_torchrec else "torch loads")
    ]


def package_findings(versions: Mapping[str, str]) -> list[Finding]:
    """The other packages: there, or what does not work without them."""
    found = []
    present = [f"{name} {versions[name]}" for name in NEEDED_FOR if name in versions]
    if present:
        found.append(Finding("ok", "packages", ", ".join(present)))
    for name, use in NEEDED_FOR.items():
        if name not in versions:
            level: Level = "broken" if use == "everything" else "warning"
            found.append(Finding(level, "packages", f"{name} is not installed; needed for {use}", INSTALL))
    return found
