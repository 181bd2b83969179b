"""Each architecture equals a loop written from its paper, in the forward pass and in all gradients.

OMoE, MMoE: Ma et al. 2018, equations 5-7. CGC, PLE: Tang et al. 2020, equations 1-8.
"""

from functools import partial

import pytest
import torch
from torch import Tensor

from recmoe.architectures import CGC, PLE, MMoE, OMoE, SharedBottom, SingleTask
from recmoe.moe.experts import Form, MlpExperts
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.mixture import MakeLayer, MixtureConfig
from tests.parity.naive import HIDDEN, WIDTH, assert_equal_to_paper, mix, run_expert, run_gate

Gate = SoftmaxGateConfig | TopKGateConfig

TASKS = {
    "one task": {"a": 2},
    "two tasks": {"a": 1, "b": 1},
    "unequal tasks": {"a": 3, "b": 1, "c": 2},
    "a task without own experts": {"a": 1, "b": 0, "c": 1, "d": 2},
}

all_forms = pytest.mark.parametrize("form", ["loop", "batched"])
all_gates = pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=lambda gate: gate.kind)
all_tasks = pytest.mark.parametrize("tasks", list(TASKS.values()), ids=list(TASKS))
all_batches = pytest.mark.parametrize("num_rows", [1, 4])


def layer_of(gate: Gate, form: Form = "auto") -> MakeLayer:
    """What builds layers of small experts."""
    return partial(MixtureConfig(expert_hidden=HIDDEN, gate=gate).layer, form=form)


@all_forms
@all_batches
@pytest.mark.parametrize("num_tasks", [1, 2, 4])
def test_single_task_equals_one_network_per_task(form: Form, num_rows: int, num_tasks: int) -> None:
    torch.manual_seed(0)
    names = [f"task{task}" for task in range(num_tasks)]
    module = SingleTask(in_features=WIDTH, task_names=names, hidden=HIDDEN, form=form).double()

    def paper(x_D: Tensor) -> list[Tensor]:
        return [run_expert(module.experts, task, x_D) for task in range(num_tasks)]

    assert_equal_to_paper(module, paper, num_rows=num_rows, num_tasks=num_tasks)


@all_batches
@pytest.mark.parametrize("num_tasks", [1, 2, 4])
def test_shared_bottom_equals_one_network_for_all_tasks(num_rows: int, num_tasks: int) -> None:
    torch.manual_seed(0)
    module = SharedBottom(in_features=WIDTH, num_tasks=num_tasks, hidden=HIDDEN).double()

    def paper(x_D: Tensor) -> list[Tensor]:
        return [run_expert(module.experts, 0, x_D) for _ in range(num_tasks)]

    assert_equal_to_paper(module, paper, num_rows=num_rows, num_tasks=num_tasks)


@all_forms
@all_gates
@all_batches
@pytest.mark.parametrize("num_tasks", [1, 2, 4])
def test_omoe_equals_one_gate_for_all_tasks(form: Form, gate: Gate, num_rows: int, num_tasks: int) -> None:
    torch.manual_seed(0)
    module = OMoE(
        in_features=WIDTH,
        num_tasks=num_tasks,
        num_experts=3,
        make_layer=layer_of(gate, form),
    ).double()

    def paper(x_D: Tensor) -> list[Tensor]:
        outputs = [run_expert(module.layer.experts, expert, x_D) for expert in range(3)]
        return [mix(run_gate(module.layer.gates[0], x_D), outputs)] * num_tasks

    assert_equal_to_paper(module, paper, num_rows=num_rows, num_tasks=num_tasks)


@all_forms
@all_gates
@all_batches
@pytest.mark.parametrize("num_tasks", [1, 2, 4])
def test_mmoe_equals_one_gate_per_task(form: Form, gate: Gate, num_rows: int, num_tasks: int) -> None:
    torch.manual_seed(0)
    module = MMoE(
        in_features=WIDTH,
        task_names=[f"task{task}" for task in range(num_tasks)],
        num_experts=3,
        make_layer=layer_of(gate, form),
    ).double()

    def paper(x_D: Tensor) -> list[Tensor]:
        outputs = [run_expert(module.layer.experts, expert, x_D) for expert in range(3)]
        return [mix(run_gate(module.layer.gates[task], x_D), outputs) for task in range(num_tasks)]

    assert_equal_to_paper(module, paper, num_rows=num_rows, num_tasks=num_tasks)


def owned(experts: MlpExperts, counts: list[int], num_shared: int, inputs: list[Tensor]) -> list[list[Tensor]]:
    """Outputs of the experts of each task, then of the shared ones, each owner on its own input."""
    outputs = []
    first = 0
    for count, x in zip([*counts, num_shared], inputs, strict=True):
        outputs.append([run_expert(experts, first + own, x) for own in range(count)])
        first += count
    return outputs


@all_forms
@all_gates
@all_batches
@all_tasks
@pytest.mark.parametrize("num_shared", [1, 2])
def test_cgc_equals_own_and_shared_experts(
    form: Form, gate: Gate, num_rows: int, tasks: dict[str, int], num_shared: int
) -> None:
    torch.manual_seed(0)
    module = CGC(
        in_features=WIDTH,
        num_task_experts=tasks,
        num_shared_experts=num_shared,
        make_layer=layer_of(gate, form),
    ).double()
    counts = list(tasks.values())

    def paper(x_D: Tensor) -> list[Tensor]:
        *own, shared = owned(module.layer.experts, counts, num_shared, [x_D] * (len(counts) + 1))
        # Eq. 1-4: S^k(x) is the matrix of E_(k,1) … E_(k,m_k), E_(s,1) … E_(s,m_s).
        return [mix(run_gate(module.layer.gates[task], x_D), own[task] + shared) for task in range(len(counts))]

    assert_equal_to_paper(module, paper, num_rows=num_rows, num_tasks=len(tasks))


@all_forms
@all_gates
@all_batches
@all_tasks
@pytest.mark.parametrize("num_shared", [1, 2])
@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_ple_equals_extraction_level_by_level(
    form: Form, gate: Gate, num_rows: int, tasks: dict[str, int], num_shared: int, num_levels: int
) -> None:
    torch.manual_seed(0)
    module = PLE(
        in_features=WIDTH,
        num_levels=num_levels,
        num_task_experts=tasks,
        num_shared_experts=num_shared,
        make_layer=layer_of(gate, form),
    ).double()
    counts = list(tasks.values())

    def paper(x_D: Tensor) -> list[Tensor]:
        streams = [x_D] * (len(counts) + 1)
        for level, layer in enumerate(module.levels):
            *own, shared = owned(layer.experts, counts, num_shared, streams)
            # Eq. 5-6: g^(k,j) = w^(k,j)(g^(k,j-1)) · S^(k,j), own and shared experts.
            tasks_next = [
                mix(run_gate(layer.gates[task], streams[task]), own[task] + shared) for task in range(len(counts))
            ]
            if level == num_levels - 1:
                assert len(layer.gates) == len(counts)
                return tasks_next
            # The shared gate selects from the experts of all tasks and the shared ones.
            every_expert = [output for outputs in own for output in outputs] + shared
            streams = [*tasks_next, mix(run_gate(layer.gates[-1], streams[-1]), every_expert)]
        raise AssertionError

    assert_equal_to_paper(module, paper, num_rows=num_rows, num_tasks=len(tasks))


def test_ple_of_one_level_is_cgc() -> None:
    torch.manual_seed(0)
    shape = {"in_features": WIDTH, "num_shared_experts": 2, "num_task_experts": {"a": 1, "b": 2}}
    cgc = CGC(**shape, make_layer=layer_of(SoftmaxGateConfig()))
    ple = PLE(**shape, make_layer=layer_of(SoftmaxGateConfig()), num_levels=1)
    x_BD = torch.randn(4, WIDTH)

    ple.levels[0].load_state_dict(cgc.layer.state_dict())

    torch.testing.assert_close(ple(x_BD)[0], cgc(x_BD)[0], rtol=0, atol=0)
