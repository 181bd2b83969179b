"""diagnose(): what is installed, whether it fits together, what the machine can do, and what to do about problems."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recmoe.errors import RegistryError
from recmoe.machine import Machine
from recmoe.stack import Finding, Gpu, installed_versions, package_findings, probe_stack, stack_findings

GIB = 1 << 30


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the facts they come from."""

    versions: Mapping[str, str]
    machine: Machine
    gpus: tuple[Gpu, ...]
    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Nothing is broken; warnings may be left."""
        return all(finding.level != "broken" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        machine = asdict(self.machine) | {"folder": str(self.machine.folder)}
        return {
            "is_healthy": self.is_healthy,
            "versions": dict(self.versions),
            "machine": machine,
            "gpus": [asdict(gpu) for gpu in self.gpus],
            "findings": [asdict(finding) for finding in self.findings],
        }


def diagnose(folder: Path, environment: Mapping[str, str] = os.environ) -> Diagnosis:
    """Look at the installed packages, this machine and the tracking store."""
    versions = installed_versions()
    machine = Machine.read(folder)
    gpus, imports = probe_stack(has_torchrec="torchrec" in versions) if "torch" in versions else ((), [])
    findings = [
        *stack_findings(versions, has_gpu=bool(gpus)),
        *imports,
        *package_findings(versions),
        *machine_findings(machine, gpus),
        *thread_findings(machine, environment),
        tracking_finding(environment.get("MLFLOW_TRACKING_URI"), has_mlflow="mlflow" in versions),
    ]
    return Diagnosis(versions, machine, gpus, tuple(findings))


def machine_findings(machine: Machine, gpus: tuple[Gpu, ...]) -> list[Finding]:
    """Devices, cores, instruction sets, bf16, memory and disk."""
    found = [
        Finding("ok", "device", f"cuda:{index} {gpu.name}, {gpu.memory_bytes / GIB:.0f} GiB")
        for index, gpu in enumerate(gpus)
    ] or [Finding("ok", "device", f"cpu, {machine.processor}; torch sees no CUDA device")]
    cores = f"{machine.usable_cores:g} of {machine.num_cores} cores"
    if machine.limits.num_cores is not None and machine.limits.num_cores < machine.num_usable_cores:
        cores += ", limited by the container"
    found += [Finding("ok", "cores", cores), _instruction_finding(machine), _bf16_finding(machine, gpus)]
    found.append(_memory_finding(machine))
    shared = machine.shared_memory_bytes
    if shared is not None and shared < GIB:
        message = f"/dev/shm has {shared / GIB:.2f} GiB; Ray then keeps its objects in files, which is slow"
        found.append(Finding("warning", "memory", message, "start the container with --shm-size=2g"))
    free = machine.free_disk_bytes
    disk = f"{free / GIB:.1f} GiB free in {machine.folder}"
    if free < GIB:
        found.append(Finding("broken", "disk", disk, "free at least 1 GiB for checkpoints, or run in another folder"))
    elif free < 10 * GIB:
        found.append(Finding("warning", "disk", disk, "checkpoints of large tables may not fit"))
    else:
        found.append(Finding("ok", "disk", disk))
    return found


def _instruction_finding(machine: Machine) -> Finding:
    sets = machine.instruction_sets
    if not sets:
        return Finding("note", "instructions", "vector instruction sets cannot be told on this system")
    if "AVX2" not in sets and "NEON" not in sets:
        remedy = "use a machine with AVX2, or tables.backend=plain"
        return Finding("warning", "instructions", f"{', '.join(sets)}, without AVX2: fbgemm is slow or fails", remedy)
    return Finding("ok", "instructions", ", ".join(sets))


def _bf16_finding(machine: Machine, gpus: tuple[Gpu, ...]) -> Finding:
    if gpus:
        fast = [gpu for gpu in gpus if gpu.capability >= (8, 0)]
        if len(fast) == len(gpus):
            return Finding("ok", "bf16", "pays: the GPU multiplies bf16 in hardware; precision: auto uses it")
        return Finding(
            "ok", "bf16", "does not pay: the GPU is older than compute capability 8.0; precision: auto is fp32"
        )
    units = [name for name in ("AVX512-BF16", "AMX-BF16") if name in machine.instruction_sets]
    if units:
        return Finding("ok", "bf16", f"pays: {', '.join(units)}; precision: auto uses it")
    return Finding("ok", "bf16", "does not pay: no AVX512-BF16 and no AMX; precision: auto is fp32")


def _memory_finding(machine: Machine) -> Finding:
    usable, available = machine.usable_memory_bytes, machine.available_memory_bytes
    message = f"{min(usable, available) / GIB:.1f} of {usable / GIB:.1f} GiB available"
    if machine.limits.memory_bytes is not None and machine.limits.memory_bytes < machine.memory_bytes:
        message += ", limited by the container"
    if min(usable, available) < 2 * GIB:
        return Finding(
            "warning", "memory", message, "Ray, MLflow and two workers want about 4 GiB; stop other programs"
        )
    return Finding("ok", "memory", message)


def thread_findings(machine: Machine, environment: Mapping[str, str]) -> list[Finding]:
    """OpenMP's settings against the cores."""
    cores = max(1, int(machine.usable_cores))
    text = environment.get("OMP_NUM_THREADS")
    found = []
    if text is not None and not text.isdigit():
        found.append(Finding("warning", "threads", f"OMP_NUM_THREADS={text!r} is no number", "unset OMP_NUM_THREADS"))
    elif text is not None and int(text) > cores:
        message = f"OMP_NUM_THREADS={text} on {cores} cores: threads wait for each other"
        found.append(Finding("warning", "threads", message, f"export OMP_NUM_THREADS={cores}, or unset it"))
    elif text is None and cores < machine.num_usable_cores:
        message = f"the container may use {cores} cores, and OpenMP will start {machine.num_usable_cores} threads"
        found.append(Finding("warning", "threads", message, f"export OMP_NUM_THREADS={cores}"))
    else:
        found.append(Finding("ok", "threads", f"OMP_NUM_THREADS={text}" if text else f"OpenMP starts {cores} threads"))
    policy = environment.get("OMP_WAIT_POLICY")
    if policy is None or policy.lower() != "passive":
        message = "OpenMP threads wait busily; on a full machine that costs more than it saves"
        found.append(Finding("note", "threads", message, "export OMP_WAIT_POLICY=passive where other programs run too"))
    return found


def tracking_finding(uri: str | None, *, has_mlflow: bool, timeout_s: float = 5.0) -> Finding:
    """Whether the tracking store of the environment answers."""
    if not uri:
        return Finding("ok", "tracking", "MLFLOW_TRACKING_URI is not set: runs go to a SQLite file beside them")
    # Its package loads pydantic, without which the rest of this file works.
    from recmoe.tracking.names import without_password

    shown = without_password(uri)
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).resolve().parent
        if folder.is_dir() and os.access(folder, os.W_OK):
            return Finding("ok", "tracking", shown)
        remedy = f"mkdir -p {folder}, or set MLFLOW_TRACKING_URI to another place"
        return Finding("broken", "tracking", f"{shown}: folder {folder} cannot be written", remedy)
    if not has_mlflow or urlsplit(uri).scheme not in ("http", "https"):
        return Finding("note", "tracking", f"{shown} was not tried")
    # MLflow takes two seconds to import.
    from recmoe.tracking.mlflow_store import MlflowStore

    try:
        MlflowStore.connect(uri, folder=Path.cwd(), timeout_s=timeout_s)
    except RegistryError as error:
        message, _, remedy = str(error).partition("; ")
        return Finding("broken", "tracking", message, remedy)
    return Finding("ok", "tracking", f"{shown} answers")
