"""One contract for every kind of balance."""

# B rows, D input width, V experts visible to a gate

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, multiprocessing
from torch import distributed as dist

from recmoe.moe.balance import BalanceTermConfig
from recmoe.moe.balance.term import BalanceKind
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Distilled, Nulls, Weighed
from recmoe.moe.mixture import MixtureConfig

FIELDS: dict[str, dict[str, Any]] = {"groups": {"feature": "country"}}
"""What has to be given, by kind."""
CONFIGS: list[BalanceKind] = [
    config_class(**FIELDS.get(config_class.model_fields["kind"].default, {}))
    for config_class in get_args(get_args(BalanceTermConfig)[0])
]
LOSSES = [config for config in CONFIGS if config.factor > 0]
GATES: dict[str, dict[str, Any]] = {
    "load": {"kind": "noisy_top_k", "k": 2},
    "bias": {"kind": "top_k", "k": 2},
    "null_experts": {"kind": "null_experts"},
    "stable": {"kind": "stable"},
}
TASKS = ("ctr", "cvr")
NUM_ROWS, NUM_WORKERS = 12, 2

every_kind = pytest.mark.parametrize("config", CONFIGS, ids=[config.kind for config in CONFIGS])  # type: ignore[attr-defined]
every_loss = pytest.mark.parametrize("config", LOSSES, ids=[config.kind for config in LOSSES])  # type: ignore[attr-defined]


def layers_for(config: BalanceKind) -> list[ExpertLayer]:
    """Two levels of own and shared experts, as training has them, with gates far from even."""
    torch.manual_seed(0)
    mixture = MixtureConfig.model_validate({"gate": GATES.get(config.kind, {"kind": "softmax"}), "expert_hidden": [5]})  # type: ignore[attr-defined]
    experts = {"ctr.0": 0, "cvr.0": 0, "shared.0": 0, "shared.1": 0}
    mask_GE = [[True, False, True, True], [False, True, True, True]]
    layers = [
        mixture.layer(experts=experts, gates=dict.fromkeys(TASKS, 0), mask_GE=mask_GE, in_features=6, level=level)
        for level in range(2)
    ]
    for layer in layers:
        config.prepare(layer)
        with torch.no_grad():
            for parameter in layer.gates.parameters():
                parameter.mul_(4.0)
    return layers


def uses_of(layers: list[ExpertLayer], x_BD: Tensor) -> list[GateUse]:
    torch.manual_seed(1)
    return [replace(layer.route([x_BD])[1], ids=ids_of(x_BD)) for layer in layers]


def ids_of(x_BD: Tensor) -> dict[str, Tensor]:
    """Two countries, which lie apart."""
    return {"country": (x_BD[:, 0] > 0).long()}


@every_kind
def test_kind_alone_is_a_config_that_works(config: BalanceKind) -> None:
    parsed = TypeAdapter[BalanceKind](BalanceTermConfig).validate_python({"kind": config.kind})  # type: ignore[attr-defined]

    assert parsed == type(config)()
    assert parsed.factor >= 0


@every_loss
def test_step_down_its_gradient_lowers_the_term(config: BalanceKind) -> None:
    layers = layers_for(config)
    term = config.build(task_names=TASKS)
    x_BD = torch.randn(NUM_ROWS, 6)
    weights = [weight for layer in layers for weight in layer.parameters()]

    before = term(uses_of(layers, x_BD))
    grads = torch.autograd.grad(before, weights, allow_unused=True)
    with torch.no_grad():
        for weight, grad in zip(weights, grads, strict=True):
            if grad is not None:
                weight -= 1e-3 * grad
    after = term(uses_of(layers, x_BD))

    assert before.ndim == 0
    assert after < before
    assert all(grad.isfinite().all() for grad in grads if grad is not None)


@every_kind
def test_batch_of_one_row_and_gates_that_see_one_expert_give_a_finite_number(config: BalanceKind) -> None:
    torch.manual_seed(0)
    layer = MixtureConfig.model_validate({"gate": GATES.get(config.kind, {}) or {"kind": "softmax"}}).layer(  # type: ignore[attr-defined]
        experts={"shared.0": 0}, gates=dict.fromkeys(TASKS, 0), mask_GE=[[True], [True]], in_features=6
    )
    config.prepare(layer)

    value = config.build(task_names=TASKS)(uses_of([layer], torch.randn(1, 6)))

    assert value.isfinite()
    if value.requires_grad:
        value.backward()
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in layer.parameters())


@every_loss
def test_experts_that_no_row_chooses_leave_the_gradient_finite(config: BalanceKind) -> None:
    weights_BV = torch.tensor([[1.0, 0.0, 0.0]] * 4, requires_grad=True)
    of_gate = Weighed(weights_BV, load=lambda: weights_BV)
    use = GateUse(0, TASKS, ("a.0", "a.1", "a.2"), torch.stack([weights_BV] * 2, dim=1), by_gate=(of_gate, of_gate))
    use = replace(use, ids={"country": torch.tensor([0, 1, 1, 2])})

    value = config.build(task_names=TASKS)([use])

    if value.requires_grad:
        (grad,) = torch.autograd.grad(value, weights_BV)
        assert grad.isfinite().all()


def plain_uses(weights: list[Tensor], bias_V: Tensor, x_BD: Tensor) -> Iterator[GateUse]:
    """Two levels whose gates and experts are matrices alone: no noise, which would differ from process to process."""
    for level, (ctr_DV, cvr_DV, expert_DH, other_DH) in enumerate([weights[:4], weights[4:]]):
        gates = []
        for weight_DV in (ctr_DV, cvr_DV):
            logits_BV = x_BD @ weight_DV
            best_BK, chosen_BK = logits_BV.topk(2, dim=1)
            p_BV = torch.zeros_like(logits_BV).scatter(1, chosen_BK, torch.softmax(best_BK, dim=1))
            nulls = Nulls(-logits_BV, logits_BV < 0)
            distilled = Distilled(logits_BV.detach(), chosen_BK[:, 0], torch.tensor(True))
            load = partial(torch.sigmoid, logits_BV)
            gates.append(Weighed(p_BV, logits_BV, load, bias_V, nulls, distilled=distilled))
        outputs = {"shared.0": x_BD @ expert_DH, "shared.1": x_BD @ other_DH}
        yield GateUse(
            level=level,
            gates=TASKS,
            experts=("shared.0", "shared.1", "shared.2"),
            weights_BGE=torch.stack([gate.weights_BV for gate in gates], dim=1),
            by_gate=tuple(gates),
            outputs=lambda _, outputs=outputs: outputs,
            ids=ids_of(x_BD),
        )


def found_by(rank: int, num_workers: int) -> dict[str, tuple[Tensor, list[Tensor], Tensor]]:
    """By kind, from this process's part of the rows: the value, the gradients, the biases after the step."""
    generator = torch.Generator().manual_seed(2)
    x_BD = torch.randn(NUM_ROWS, 6, generator=generator)
    # The workers' rows are alike in themselves and unlike the others'.
    x_BD[: NUM_ROWS // 2] += 1.0
    weights = [torch.randn(6, 3, generator=generator).requires_grad_() for _ in range(8)]
    found = {}
    for config in CONFIGS:
        bias_V = torch.zeros(3)
        uses = list(plain_uses(weights, bias_V, x_BD.chunk(num_workers)[rank]))
        value = config.build(task_names=TASKS)(uses)
        grads: list[Tensor] = []
        if value.requires_grad:
            given = torch.autograd.grad(value, weights, allow_unused=True)
            grads = [torch.zeros(6, 3) if grad is None else grad for grad in given]
        found[config.kind] = (value.detach(), grads, bias_V)  # type: ignore[attr-defined]
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_WORKERS)
    torch.save(found_by(rank, NUM_WORKERS), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_are_one_with_all_the_rows(tmp_path: Path) -> None:
    expected = found_by(0, 1)

    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=NUM_WORKERS)

    by_rank = [torch.load(tmp_path / f"{rank}.pt") for rank in range(NUM_WORKERS)]
    for kind, (value, grads, bias_V) in expected.items():
        values, gradients, biases = zip(*(found[kind] for found in by_rank), strict=True)
        # A worker's gradient is averaged with the others', as data parallel training does.
        torch.testing.assert_close(sum(values) / NUM_WORKERS, value, rtol=1e-5, atol=1e-6, msg=kind)
        for grad, *of_workers in zip(grads, *gradients, strict=True):
            torch.testing.assert_close(sum(of_workers) / NUM_WORKERS, grad, rtol=1e-4, atol=1e-6, msg=kind)
        assert all(torch.equal(of_worker, bias_V) for of_worker in biases), kind
    assert expected["bias"][2].abs().sum() > 0
