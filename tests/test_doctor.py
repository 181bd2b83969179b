import json
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from recmoe.doctor import GIB, Diagnosis, diagnose, machine_findings, thread_findings, tracking_finding
from recmoe.machine import Limits, Machine
from recmoe.stack import Finding, Gpu

MACHINE = Machine(
    system="Linux",
    processor="Some CPU",
    num_cores=8,
    num_usable_cores=8,
    limits=Limits(),
    instruction_sets=("AVX2",),
    memory_bytes=16 * GIB,
    available_memory_bytes=12 * GIB,
    shared_memory_bytes=8 * GIB,
    folder=Path("/somewhere"),
    free_disk_bytes=100 * GIB,
)


def finding(topic: str, machine: Machine = MACHINE, gpus: tuple[Gpu, ...] = ()) -> Finding:
    return [found for found in machine_findings(machine, gpus) if found.topic == topic][-1]


@pytest.mark.slow
def test_this_environment_is_healthy_and_says_so_in_json(tmp_path: Path) -> None:
    diagnosis = diagnose(tmp_path, environment={})

    values = json.loads(json.dumps(diagnosis.to_json()))

    assert diagnosis.is_healthy, values["findings"]
    assert values["machine"]["folder"] == str(tmp_path.resolve())
    assert {"python", "torch", "import", "device", "cores", "bf16", "disk", "tracking"} <= {
        found["topic"] for found in values["findings"]
    }


def test_something_broken_is_not_healthy() -> None:
    warned = Diagnosis({}, MACHINE, (), (Finding("warning", "disk", "nearly full"),))
    broken = Diagnosis({}, MACHINE, (), (Finding("broken", "disk", "full", "free some"),))

    assert warned.is_healthy
    assert not broken.is_healthy


def test_good_machine_has_no_problems() -> None:
    found = machine_findings(MACHINE, ())

    assert {one.level for one in found} == {"ok"}


def test_cores_of_a_container_are_named_so() -> None:
    machine = replace(MACHINE, limits=Limits(num_cores=1.5))

    assert finding("cores", machine).message == "1.5 of 8 cores, limited by the container"


@pytest.mark.parametrize(
    ("sets", "pays"), [(("AVX2",), False), (("AVX2", "AVX512-BF16"), True), (("AVX2", "AMX-BF16"), True)]
)
def test_bf16_pays_where_the_processor_multiplies_it(sets: tuple[str, ...], pays: bool) -> None:
    found = finding("bf16", replace(MACHINE, instruction_sets=sets))

    assert found.message.startswith("pays" if pays else "does not pay")


@pytest.mark.parametrize(("capability", "pays"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_pays_on_recent_gpus(capability: tuple[int, int], pays: bool) -> None:
    gpu = Gpu("Some GPU", 80 * GIB, capability)

    assert finding("device", gpus=(gpu,)).message == "cuda:0 Some GPU, 80 GiB"
    assert finding("bf16", gpus=(gpu,)).message.startswith("pays" if pays else "does not pay")


def test_processor_without_avx2_is_a_warning() -> None:
    found = finding("instructions", replace(MACHINE, instruction_sets=("AVX512-BF16",)))

    assert found.level == "warning"
    assert "tables.backend=plain" in found.remedy


def test_unknown_instruction_sets_are_a_note() -> None:
    assert finding("instructions", replace(MACHINE, instruction_sets=())).level == "note"


def test_little_memory_in_a_container_is_a_warning() -> None:
    found = finding("memory", replace(MACHINE, limits=Limits(memory_bytes=GIB)))

    assert (found.level, found.message) == ("warning", "1.0 of 1.0 GiB available, limited by the container")


def test_small_shared_memory_is_a_warning() -> None:
    found = finding("memory", replace(MACHINE, shared_memory_bytes=GIB // 16))

    assert found.level == "warning"
    assert "--shm-size" in found.remedy


@pytest.mark.parametrize(("free_gib", "level"), [(0.5, "broken"), (5, "warning"), (50, "ok")])
def test_free_disk_decides_whether_checkpoints_fit(free_gib: float, level: str) -> None:
    found = finding("disk", replace(MACHINE, free_disk_bytes=int(free_gib * GIB)))

    assert found.level == level


@pytest.mark.parametrize(
    ("limit", "environment", "level", "remedy"),
    [
        (None, {}, "ok", ""),
        (None, {"OMP_NUM_THREADS": "8"}, "ok", ""),
        (None, {"OMP_NUM_THREADS": "16"}, "warning", "export OMP_NUM_THREADS=8, or unset it"),
        (2.0, {}, "warning", "export OMP_NUM_THREADS=2"),
        (None, {"OMP_NUM_THREADS": "many"}, "warning", "unset OMP_NUM_THREADS"),
    ],
)
def test_threads_are_held_against_the_cores(
    limit: float | None, environment: dict[str, str], level: str, remedy: str
) -> None:
    machine = replace(MACHINE, limits=Limits(num_cores=limit))

    found = thread_findings(machine, {"OMP_WAIT_POLICY": "PASSIVE", **environment})

    assert [(one.level, one.remedy) for one in found] == [(level, remedy)]


def test_busy_waiting_threads_are_a_note() -> None:
    found = thread_findings(MACHINE, {})

    assert found[-1].level == "note"
    assert "OMP_WAIT_POLICY=passive" in found[-1].remedy


def test_tracking_server_that_does_not_answer_is_broken() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"

    found = tracking_finding(uri, has_mlflow=True)

    assert found.level == "broken"
    assert found.message.startswith(f"MLflow at {uri} does not answer")
    assert "set MLFLOW_TRACKING_URI" in found.remedy


@pytest.mark.parametrize("user", ["", "ann:secret@"])
def test_tracking_server_that_answers_is_fine_and_shown_without_password(user: str) -> None:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        found = tracking_finding(f"http://{user}{address}", has_mlflow=True)
        server.shutdown()

    assert (found.level, found.message) == ("ok", f"http://{address} answers")


def test_database_in_a_folder_that_is_not_there_is_broken(tmp_path: Path) -> None:
    absent = tracking_finding(f"sqlite:///{tmp_path}/absent/mlflow.db", has_mlflow=True)
    present = tracking_finding(f"sqlite:///{tmp_path}/mlflow.db", has_mlflow=True)

    assert (absent.level, absent.remedy.split(",")[0]) == ("broken", f"mkdir -p {tmp_path}/absent")
    assert present.level == "ok"


def test_store_that_was_not_tried_is_shown_without_password() -> None:
    found = tracking_finding("postgresql://ann:secret@db/x", has_mlflow=True)

    assert (found.level, found.message) == ("note", "postgresql://db/x was not tried")


def test_store_that_cannot_be_tried_is_a_note() -> None:
    assert tracking_finding("databricks", has_mlflow=True).level == "note"
    assert tracking_finding(None, has_mlflow=True).level == "ok"
