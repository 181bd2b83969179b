"""Machine: what this process may use of the computer it runs on."""

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}
"""Flags of /proc/cpuinfo that matter for matrix products, and how people call them."""

NO_LIMIT_BYTES = 1 << 60
"""Version 1 control groups write a number near 2^63 where there is no limit."""


@dataclass(frozen=True)
class Limits:
    """What the control groups around this process allow it; None is no limit."""

    num_cores: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Machine:
    """Cores, instruction sets, memory and disk, as seen from inside a container if there is one."""

    system: str
    processor: str
    num_cores: int
    """Logical cores of the computer."""
    num_usable_cores: int
    """Those the process may be scheduled on."""
    limits: Limits
    """Of the control groups."""
    instruction_sets: tuple[str, ...]
    """In the order of INSTRUCTION_SETS."""
    memory_bytes: int
    """Of the computer."""
    available_memory_bytes: int
    """Free for new processes now."""
    shared_memory_bytes: int | None
    """Size of /dev/shm; None where there is none."""
    folder: Path
    """Folder whose disk was asked."""
    free_disk_bytes: int

    @classmethod
    def read(cls, folder: Path) -> "Machine":
        """This machine, and the disk that holds a folder."""
        cpuinfo = Path("/proc/cpuinfo")
        text = cpuinfo.read_text(errors="replace", encoding="utf-8") if cpuinfo.exists() else ""
        name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        memory = psutil.virtual_memory()
        shared = Path("/dev/shm")
        num_cores = psutil.cpu_count() or 1
        return cls(
            system=platform.platform(),
            processor=name[1] if name else platform.processor() or platform.machine(),
            num_cores=num_cores,
            num_usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else num_cores,
            limits=cgroup_limits(),
            instruction_sets=instruction_sets(text),
            memory_bytes=memory.total,
            available_memory_bytes=memory.available,
            shared_memory_bytes=shutil.disk_usage(shared).total if shared.is_dir() else None,
            folder=folder.resolve(),
            free_disk_bytes=shutil.disk_usage(folder).free,
        )

    @property
    def usable_cores(self) -> float:
        """Cores that can be busy at once; a container may have 1.5."""
        return min(self.num_usable_cores, self.limits.num_cores or self.num_usable_cores)

    @property
    def usable_memory_bytes(self) -> int:
        """Memory that may be used before the system or the container stops the process."""
        return min(self.memory_bytes, self.limits.memory_bytes or self.memory_bytes)


def instruction_sets(cpuinfo: str) -> tuple[str, ...]:
    """What /proc/cpuinfo says about vector and matrix units; empty where it cannot be told."""
    flags = {
        flag for line in re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE) for flag in line.split()
    }
    return tuple(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def cgroup_limits(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Limits:
    """The tightest limits of the control groups, versions 1 and 2, that this process is in."""
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.exists() else []
    cores: list[float] = []
    memory: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for base in (root / name for name in (controllers.split(",") if controllers else ("", "unified"))):
            group = base / path.strip("/")
            # A group is bound by every group around it; in a container the outermost is the mount itself.
            while group.is_relative_to(base):
                cores += _core_limits(group)
                memory += _memory_limits(group)
                group = group.parent
    return Limits(num_cores=min(cores, default=None), memory_bytes=min(memory, default=None))


def _core_limits(group: Path) -> list[float]:
    quota, period = (_text(group / "cpu.max") or "max 100000").split()
    if quota == "max":
        quota, period = _text(group / "cpu.cfs_quota_us") or "-1", _text(group / "cpu.cfs_period_us") or "100000"
    return [int(quota) / int(period)] if int(quota) > 0 else []


def _memory_limits(group: Path) -> list[int]:
    texts = [_text(group / name) for name in ("memory.max", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text and text != "max"]
    return [limit for limit in limits if limit < NO_LIMIT_BYTES]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
