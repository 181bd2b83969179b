from pathlib import Path

import pytest

from recmoe.machine import Limits, Machine, cgroup_limits, instruction_sets


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_this_machine_has_cores_memory_and_disk(tmp_path: Path) -> None:
    machine = Machine.read(tmp_path)

    assert 0 < machine.usable_cores <= machine.num_usable_cores <= machine.num_cores
    assert 0 < machine.usable_memory_bytes <= machine.memory_bytes
    assert machine.free_disk_bytes > 0
    assert machine.processor


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags\t\t: fpu avx avx2 avx512f avx512_bf16 amx_bf16\n", ("AVX2", "AVX-512", "AVX512-BF16", "AMX-BF16")),
        ("model name : bf16 avx2\nflags : sse2\n", ()),
        ("Features\t: fp asimd sve\n", ("NEON", "SVE")),
        ("", ()),
    ],
)
def test_instruction_sets_come_from_the_flags(cpuinfo: str, expected: tuple[str, ...]) -> None:
    found = instruction_sets(cpuinfo)

    assert found == expected


def test_tightest_limit_of_the_groups_around_counts(tmp_path: Path) -> None:
    membership = write(tmp_path / "cgroup", "0::/job/step\n")
    write(tmp_path / "fs/job/cpu.max", "150000 100000\n")
    write(tmp_path / "fs/job/memory.max", "2048\n")
    write(tmp_path / "fs/job/step/cpu.max", "max 100000\n")
    write(tmp_path / "fs/job/step/memory.max", "4096\n")

    limits = cgroup_limits(membership, tmp_path / "fs")

    assert limits == Limits(num_cores=1.5, memory_bytes=2048)


def test_container_sees_its_limits_at_the_root_of_the_mount(tmp_path: Path) -> None:
    membership = write(tmp_path / "cgroup", "0::/not/in/this/namespace\n")
    write(tmp_path / "fs/cpu.max", "400000 100000\n")
    write(tmp_path / "fs/memory.max", "max\n")

    limits = cgroup_limits(membership, tmp_path / "fs")

    assert limits == Limits(num_cores=4.0, memory_bytes=None)


def test_limits_of_version_1_groups_are_read(tmp_path: Path) -> None:
    membership = write(tmp_path / "cgroup", "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n0::/\n")
    write(tmp_path / "fs/cpu/docker/x/cpu.cfs_quota_us", "200000")
    write(tmp_path / "fs/cpu/docker/x/cpu.cfs_period_us", "100000")
    write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path / "fs/memory/docker/x/memory.limit_in_bytes", "8192")
    write(tmp_path / "fs/memory/memory.limit_in_bytes", "9223372036854771712")

    limits = cgroup_limits(membership, tmp_path / "fs")

    assert limits == Limits(num_cores=2.0, memory_bytes=8192)


def test_system_without_groups_has_no_limits(tmp_path: Path) -> None:
    limits = cgroup_limits(tmp_path / "absent", tmp_path / "fs")

    assert limits == Limits()
