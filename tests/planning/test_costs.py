from pathlib import Path

import numpy as np
import pytest

from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.planning.costs import Costs, MachineCosts, assumed_costs
from recmoe.planning.measure import AMOUNTS, PROBES, fit_costs, measure_costs
from recmoe.planning.topology import PRESETS, Efficiency
from recmoe.planning.work import Work
from recmoe.training.runtime import start_runtime


def planted(**changes: float) -> Costs:
    values = {
        "matrix_flops_per_s": 2e11,
        "activations_per_s": 1e9,
        "inputs_per_s": 4e9,
        "mixed_per_s": 5e8,
        "share_s": 1e-8,
        "product_s": 2e-4,
        "row_bytes_per_s": 8e9,
        "id_s": 1e-8,
        "table_s": 1e-5,
        "optimizer_bytes_per_s": 1e10,
        "step_s": 2e-3,
    }
    return Costs(source="planted", **{**values, **changes})


def seconds(work: Work, costs: Costs) -> float:
    """The sum that the fit takes apart."""
    total = 0.0
    for name, amount in AMOUNTS.items():
        value = getattr(costs, name)
        total += amount(work) / value if name.endswith("_per_s") else amount(work) * value
    return total


@pytest.fixture(scope="module")
def works() -> list[Work]:
    from recmoe.planning.measure import _work

    return [_work(probe) for probe in PROBES]


def test_probes_tell_every_cost_from_the_others(works: list[Work]) -> None:
    costs = planted()

    found = fit_costs(works, [seconds(work, costs) for work in works], source="planted")

    # Noise of a few percent must not be taken for a cost: so the probes must tell the costs apart without noise.
    for name in ("matrix_flops_per_s", "activations_per_s", "product_s", "optimizer_bytes_per_s", "step_s"):
        assert getattr(found, name) == pytest.approx(getattr(costs, name), rel=0.05), name


def test_costs_explain_noisy_steps(works: list[Work]) -> None:
    costs = planted()
    noise = np.random.default_rng(0).uniform(0.95, 1.05, len(works))

    found = fit_costs(works, [seconds(work, costs) * factor for work, factor in zip(works, noise, strict=True)])

    ratios = [seconds(work, found) / seconds(work, costs) for work in works]
    assert max(ratios) < 1.1
    assert min(ratios) > 0.9


def test_products_are_not_found_faster_than_the_machine_multiplies(works: list[Work]) -> None:
    costs = planted()
    peak = costs.matrix_flops_per_s / 2
    # Numbers handed on grow with the products: a fit alone could not say which of the two was slow.
    times = [seconds(work, costs) for work in works]

    found = fit_costs(works, times, peak_flops_per_s=peak)

    assert found.matrix_flops_per_s == pytest.approx(peak, rel=1e-3)
    assert found.activations_per_s > costs.activations_per_s


def test_workers_share_what_a_machine_reaches() -> None:
    shared = planted().shared_by(2)

    assert shared.matrix_flops_per_s == 1e11
    assert shared.row_bytes_per_s == 4e9
    assert shared.step_s == 2e-3


def test_machine_comes_back_from_its_file(tmp_path: Path) -> None:
    machine = MachineCosts(rates=PRESETS["h100"], fp32=planted(), bf16=planted(step_s=1e-3))

    machine.save(tmp_path / "runs/rates.json")

    assert MachineCosts.load(tmp_path / "runs/rates.json") == machine


def test_assumed_costs_are_shares_of_published_peaks_and_say_so() -> None:
    costs = assumed_costs(PRESETS["h100"], Efficiency(matrix=0.5, memory=0.25), "bf16")

    assert costs.matrix_flops_per_s == 0.5 * 989e12
    assert costs.optimizer_bytes_per_s == costs.row_bytes_per_s == 0.25 * 3.35e12
    assert costs.source.startswith("assumed: 50% of the matrix rate and 25% of the memory's bandwidth of NVIDIA H100")


@pytest.mark.slow
def test_a_machine_can_be_measured() -> None:
    rates = PRESETS["h100"].model_copy(update={"fp32_fast_flops_per_s": 1e11})

    costs = measure_costs("fp32", start_runtime(device="cpu"), rates=rates, min_s=0.0)

    assert 1e9 < costs.matrix_flops_per_s <= 1.001e11
    assert 0 < costs.step_s < 1.0


def test_a_key_of_a_probe_reads_one_table() -> None:
    assert PROBES[0].layout == InputLayout(
        tables=(TableSpec("t0", 500_000, 16, "sum", ("k0",)), TableSpec("t1", 10, 16, "sum", ("k1",))),
        sparse=(SparseKey("k0", "k0", "item", "t0", 16), SparseKey("k1", "k1", "item", "t1", 16)),
        dense=(),
    )
