"""Results of the training benchmark: what is kept, what is reused, and the arithmetic of table and ratios."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.limit import best_rates, limit_samples_per_s
from benchmarks.plot import draw
from benchmarks.results import Measurement, Results
from benchmarks.table import auc_text, markdown, ratio_lines, ratios
from recmoe.errors import DataError

SETTINGS = {"rows": 1000, "device": "cpu"}
RATES = {
    "device": "cpu",
    "source": "measured",
    "fp32_flops_per_s": 1e9,
    "fp32_fast_flops_per_s": 2e9,
    "bf16_flops_per_s": 4e9,
    "copy_bytes_per_s": 1e9,
    "random_row_bytes_per_s": 1e9,
}
WORK = {"batch_size": 100.0, "flops": 1e8, "lookup_bytes": 1e6, "update_bytes": 1e6, "optimizer_bytes": 1e6}


def measured(participant: str, precision: str, speed: float, *, number: int = 0, **values: Any) -> Measurement:
    found = {"samples_per_s": speed, "peak_gib": 1.0, "helpers_gib": 0.0, "prepare_s": 2.0, **values}
    purpose = "epoch" if "auc" in values else "speed"
    return Measurement(participant, "mmoe", precision, purpose, number, None if "auc" in values else 10, found)


@pytest.fixture
def results() -> Results:
    results = Results(SETTINGS, rates=[RATES], work={"mmoe": WORK})
    for one in (
        measured("fast", "shipped", 500),
        measured("fast", "tuned", 600),
        measured("slow", "shipped", 300, auc={"click": 0.75}),
        measured("slow", "tuned", 800),
        measured("recmoe", "bf16", 2000),
        measured("recmoe", "fp32", 1500),
        measured("recmoe", "bf16", 1900, auc={"click": 0.77}),
        measured("recmoe", "bf16", 1900, number=1, auc={"click": 0.78}),
        measured("recmoe", "fp32", 1400, auc={"click": 0.772}),
    ):
        results.add(one)
    return results


def test_ratios_are_to_the_fastest_peer_and_to_the_limit_of_the_precision(results: Results) -> None:
    (found,) = ratios(results)

    assert found.over_shipped == pytest.approx(2000 / 500)
    assert found.over_tuned == pytest.approx(2000 / 800)
    # 100 rows in 1e8 operations: at 4e9 a second 4000 rows, at 2e9 half of them.
    assert found.share_of_bf16 == pytest.approx(2000 / 4000)
    assert found.share_of_fp32 == pytest.approx(1500 / 2000)
    assert found.auc_over_peers == {"click": pytest.approx(0.775 - 0.75)}
    assert found.auc_bf16_over_fp32 == {"click": pytest.approx(0.775 - 0.772)}
    assert "- mmoe: 4.00 x the fastest peer as shipped" in ratio_lines(results)


def test_ratios_of_what_was_not_measured_are_left_out() -> None:
    results = Results(SETTINGS)
    results.add(measured("recmoe", "bf16", 2000))

    assert ratio_lines(results) == []
    assert ratio_lines(Results(SETTINGS)) == []


def test_row_is_the_mean_of_its_rounds_and_takes_no_speed_from_epochs(results: Results) -> None:
    results.add(measured("recmoe", "bf16", 3000, number=1))

    row = next(row for row in results.rows() if (row.participant, row.precision) == ("recmoe", "bf16"))

    assert row.samples_per_s == 2500
    assert row.auc == {"click": [0.77, 0.78]}


def test_newer_measurement_replaces_the_older_one(results: Results) -> None:
    before = len(results.measurements)

    results.add(measured("fast", "shipped", 700))

    assert len(results.measurements) == before
    (row,) = [row for row in results.rows() if (row.participant, row.precision) == ("fast", "shipped")]
    assert row.samples_per_s == 700


def test_results_survive_the_file_and_are_reused_for_as_many_steps(tmp_path: Path, results: Results) -> None:
    results.save(tmp_path / "results.json")

    again = Results.load(tmp_path / "results.json", SETTINGS)

    assert again == results
    key = measured("fast", "shipped", 0).key
    assert again.has(key, 10)
    assert not again.has(key, 11)
    assert not again.has(measured("fast", "shipped", 0, number=1).key, 10)


def test_results_of_another_log_are_refused(tmp_path: Path, results: Results) -> None:
    results.save(tmp_path / "results.json")

    with pytest.raises(DataError, match=r"holds results of rows 1000, device cpu, not of rows 5; choose another --to"):
        Results.load(tmp_path / "results.json", {"rows": 5})


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"settings": {}}')

    with pytest.raises(DataError, match=r"results\.json holds no results: KeyError\('measurements'\); remove it"):
        Results.load(tmp_path / "results.json", {})


def test_rates_are_the_best_of_all_measurements() -> None:
    best = best_rates([RATES, RATES | {"bf16_flops_per_s": 5e9, "copy_bytes_per_s": 5e8}])

    assert (best.bf16_flops_per_s, best.copy_bytes_per_s) == (5e9, 1e9)
    assert limit_samples_per_s(WORK, best, "bf16") == pytest.approx(5000)


def test_limit_of_float32_is_that_of_its_faster_library() -> None:
    for rates in (RATES, RATES | {"fp32_flops_per_s": 2e9, "fp32_fast_flops_per_s": 1e9}):
        assert limit_samples_per_s(WORK, best_rates([rates]), "fp32") == pytest.approx(2000)


def test_table_shows_every_row_and_the_machine(results: Results) -> None:
    page = markdown(results)

    assert "| mmoe | recmoe | bf16 | 2,000 |" in page
    assert "| 0.7750 ± 0.0050 |" in page
    assert "| mmoe | 0.1 | 2.0 | 2,000 | 4,000 | 2.0 |" in page
    assert auc_text([0.5]) == "0.5000"


def test_plot_is_drawn_with_and_without_limits(tmp_path: Path, results: Results) -> None:
    draw(results, tmp_path / "with.png")
    results.rates.clear()
    draw(results, tmp_path / "without.png")

    assert (tmp_path / "with.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "without.png").read_bytes() != (tmp_path / "with.png").read_bytes()
