"""The measurement of forward passes runs where there is no GPU too."""

from pathlib import Path

import pytest

from benchmarks.gpu_ranking import main


def test_passes_are_measured_call_by_call_and_recorded(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--bundle", str(bundle_path), "--device", "cpu", "--seconds", "0.01", "--threads", "2"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("shop on the CPU, torch ")
    fp32 = [line for line in lines if line.startswith("fp32, ")]
    assert [line[: line.index("median")].split() for line in fp32[:6]] == [
        [*name.split(), str(requests), "×", candidates]
        for name in ("fp32, call by call", "fp32, recorded")
        for requests, candidates in ((1, "200"), (1, "2,000"), (16, "200"))
    ]
    assert all(float(line.rpartition(" ")[2]) < 1e-6 for line in fp32[:6])
    assert [line.rpartition(":")[0] for line in fp32[6:]] == [
        "fp32, 2 threads, 1 × 200, each by itself",
        "fp32, 2 threads, 1 × 200, those that wait together",
    ]
