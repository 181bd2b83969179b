"""Engines: the dense part of ranking by torch, ONNX Runtime and OpenVINO, in one process, in turns.

    .venv/bin/python -m pip install --target engines --no-deps onnx onnxruntime openvino ml_dtypes flatbuffers
    PYTHONPATH=engines .venv/bin/python -m benchmarks.engines --threads 1

MMoE of the ranking benchmark: eight experts of 256 × 128, two gates, two towers, over the own columns of 200 and 2,000
candidates. What user and context give is a bias by then, as it is in the ranker. Weights are drawn, for times do not
depend on them; all engines must give the same numbers.
"""

import argparse
import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recmoe.products import has_fast_bf16

NUM_EXPERTS, NUM_TASKS = 8, 2
WIDTH, HIDDEN, EXPERT, TOWER = 273, 256, 128, 64
NUM_CANDIDATES = {200: 25, 2000: 5}
"""Calls a round."""

Run = Callable[[Tensor], Tensor]


@dataclass
class Weights:
    """Of one model; names end in its axes: E experts, T tasks, then outputs and inputs."""

    first_OD: Tensor
    first_O: Tensor
    second_EOD: Tensor
    second_EO: Tensor
    gate_OD: Tensor
    gate_O: Tensor
    tower_TOD: Tensor
    tower_TO: Tensor
    logit_TOD: Tensor
    logit_TO: Tensor

    @classmethod
    def drawn(cls) -> "Weights":
        """With seed 0."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return 0.05 * torch.randn(*shape, generator=generator)

        return cls(
            draw(NUM_EXPERTS * HIDDEN, WIDTH),
            draw(NUM_EXPERTS * HIDDEN),
            draw(NUM_EXPERTS, EXPERT, HIDDEN),
            draw(NUM_EXPERTS, EXPERT),
            draw(NUM_TASKS * NUM_EXPERTS, WIDTH),
            draw(NUM_TASKS * NUM_EXPERTS),
            draw(NUM_TASKS, TOWER, EXPERT),
            draw(NUM_TASKS, TOWER),
            draw(NUM_TASKS, 1, TOWER),
            draw(NUM_TASKS, 1),
        )

    def to(self, dtype: torch.dtype) -> "Weights":
        """In another type."""
        return Weights(**{name: weight.to(dtype) for name, weight in vars(self).items()})


@dataclass
class Engine:
    """What computes, and what it took."""

    name: str
    run: Run
    times_ms: dict[int, list[float]] = field(default_factory=lambda: {num: [] for num in NUM_CANDIDATES})
    largest: float = 0.0
    """Difference from the first engine."""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of every engine (%(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="(%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    weights = Weights.drawn()
    with TemporaryDirectory(prefix="recmoe-engines-") as folder, torch.inference_mode():
        engines = list(_engines(weights, Path(folder), num_threads=arguments.threads))
        for number in range(arguments.rounds + 1):
            for num, times in NUM_CANDIDATES.items():
                x_CD = torch.randn(num, WIDTH, generator=torch.Generator().manual_seed(num))
                expected_CT = engines[0].run(x_CD)
                for engine in engines:
                    _measure(engine, x_CD, expected_CT, times=times, is_kept=number > 0)
    print("| engine | " + " | ".join(f"1 × {num:,}: median / p99 ms" for num in NUM_CANDIDATES) + " | differs by |")
    print("|---|" + "--:|" * (len(NUM_CANDIDATES) + 1))
    for engine in engines:
        cells = [f"{np.median(of):.2f} / {np.percentile(of, 99):.2f}" for of in engine.times_ms.values()]
        print(f"| {engine.name} | " + " | ".join(cells) + f" | {engine.largest:.1e} |")


def _measure(engine: Engine, x_CD: Tensor, expected_CT: Tensor, *, times: int, is_kept: bool) -> None:
    for _ in range(times):
        start_s = time.perf_counter()
        found_CT = engine.run(x_CD)
        took_ms = (time.perf_counter() - start_s) * 1000
        if is_kept:
            engine.times_ms[len(x_CD)].append(took_ms)
    engine.largest = max(engine.largest, float((found_CT - expected_CT).abs().max()))


def _engines(weights: Weights, folder: Path, *, num_threads: int) -> Iterator[Engine]:
    """torch, and those that are installed."""
    precisions = {"fp32": torch.float32}
    if has_fast_bf16(torch.device("cpu")):
        precisions["bf16"] = torch.bfloat16
    for name, dtype in precisions.items():
        yield Engine(f"torch {torch.__version__} {name}", _by_torch(weights.to(dtype), dtype))
    try:
        onnx = importlib.import_module("onnx")
    except ImportError:
        print("the other engines are left out: they read ONNX; install it as --help says")
        return
    path = folder / "dense.onnx"
    onnx.save(_graph(weights, onnx), path)
    for package, build in (("onnxruntime", _by_onnxruntime), ("openvino", _by_openvino)):
        try:
            module = importlib.import_module(package)
        except ImportError:
            print(f"{package} is left out: it is not installed")
            continue
        for name, run in build(module, path, num_threads=num_threads, precisions=list(precisions)).items():
            yield Engine(f"{package} {module.__version__.split('-')[0]} {name}", run)


def _by_torch(weights: Weights, dtype: torch.dtype) -> Run:
    def run(x_CD: Tensor) -> Tensor:
        x_CD = x_CD.to(dtype)
        firsts = functional.linear(x_CD, weights.first_OD, weights.first_O).relu_()
        layers = zip(torch.split(firsts, HIDDEN, dim=1), weights.second_EOD, weights.second_EO, strict=True)
        y_CEH = torch.stack([functional.linear(y, weight, bias).relu_() for y, weight, bias in layers], dim=1)
        logits_CTE = functional.linear(x_CD, weights.gate_OD, weights.gate_O).view(-1, NUM_TASKS, NUM_EXPERTS)
        h_CTH = torch.bmm(torch.softmax(logits_CTE.float(), dim=2).to(dtype), y_CEH)
        found = []
        for task in range(NUM_TASKS):
            tower = functional.linear(h_CTH[:, task], weights.tower_TOD[task], weights.tower_TO[task]).relu_()
            found.append(functional.linear(tower, weights.logit_TOD[task], weights.logit_TO[task]))
        return torch.cat(found, dim=1).float()

    return run


def _by_onnxruntime(module: Any, path: Path, *, num_threads: int, precisions: list[str]) -> Mapping[str, Run]:
    del precisions  # Its CPU kernels of these operations are for float32.
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    session = module.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return {"fp32": lambda x_CD: torch.from_numpy(session.run(None, {"x": x_CD.numpy()})[0])}


def _by_openvino(module: Any, path: Path, *, num_threads: int, precisions: list[str]) -> Mapping[str, Run]:
    def run_of(precision: str) -> Run:
        hints = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
            "INFERENCE_NUM_THREADS": num_threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = module.Core().compile_model(str(path), "CPU", hints).create_infer_request()

        def run(x_CD: Tensor) -> Tensor:
            request.infer({0: x_CD.numpy()}, share_inputs=True, share_outputs=True)
            return torch.from_numpy(request.get_output_tensor(0).data.copy())

        return run

    return {precision: run_of(precision) for precision in precisions}


def _graph(weights: Weights, onnx: Any) -> Any:
    """The same model in ONNX."""
    constants: dict[str, NDArray[Any]] = {
        "first": weights.first_OD.T.numpy(),
        "first_b": weights.first_O.numpy(),
        "gate": weights.gate_OD.T.numpy(),
        "gate_b": weights.gate_O.numpy(),
        "widths": np.full(NUM_EXPERTS, HIDDEN),
        "experts": np.full(NUM_TASKS, NUM_EXPERTS),
        "axis": np.array([1]),
    }
    nodes: list[Any] = []

    def add(operation: str, inputs: list[str], outputs: list[str], **attributes: int) -> str:
        nodes.append(onnx.helper.make_node(operation, inputs, outputs, **attributes))
        return outputs[0]

    def linear(x: str, name: str, weight_OD: Tensor, bias_O: Tensor) -> str:
        constants[name], constants[f"{name}_b"] = weight_OD.T.numpy(), bias_O.numpy()
        return add("Gemm", [x, name, f"{name}_b"], [f"{name}_y"])

    add("Relu", [add("Gemm", ["x", "first", "first_b"], ["first_y"])], ["first_z"])
    add("Split", ["first_z", "widths"], [f"part{expert}" for expert in range(NUM_EXPERTS)], axis=1)
    outputs = []
    for expert in range(NUM_EXPERTS):
        y = linear(f"part{expert}", f"second{expert}", weights.second_EOD[expert], weights.second_EO[expert])
        outputs.append(add("Unsqueeze", [add("Relu", [y], [f"{y}_z"]), "axis"], [f"{y}_u"]))
    add("Concat", outputs, ["all"], axis=1)
    add("Gemm", ["x", "gate", "gate_b"], ["logits"])
    add("Split", ["logits", "experts"], [f"logits{task}" for task in range(NUM_TASKS)], axis=1)
    found = []
    for task in range(NUM_TASKS):
        share = add("Unsqueeze", [add("Softmax", [f"logits{task}"], [f"share{task}"], axis=1), "axis"], [f"row{task}"])
        h = add("Squeeze", [add("MatMul", [share, "all"], [f"mixed{task}"]), "axis"], [f"h{task}"])
        y = linear(h, f"tower{task}", weights.tower_TOD[task], weights.tower_TO[task])
        z = add("Relu", [y], [f"{y}_z"])
        found.append(linear(z, f"logit{task}", weights.logit_TOD[task], weights.logit_TO[task]))
    add("Concat", found, ["out"], axis=1)
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "dense",
        [onnx.helper.make_tensor_value_info("x", kind, ["C", WIDTH])],
        [onnx.helper.make_tensor_value_info("out", kind, ["C", NUM_TASKS])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


if __name__ == "__main__":
    main()
