import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recmoe.cli.app import app
from recmoe.errors import ConfigError
from recmoe.planning.costs import Costs, MachineCosts
from recmoe.planning.topology import PRESETS

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = ["--rows", "user=2e9", "--rows", "item=10_000_000_000"]
SMALL = """
name: small
data: {train: none.parquet}
inputs:
  width: 16
  features: {user: {kind: id, side: user}, item: {kind: id}, tags: {kind: id_list, table: item}}
tasks: {ctr: {kind: binary, label: click}}
training: {batch_size: 1024}
"""
COSTS = Costs(
    matrix_flops_per_s=1e11,
    activations_per_s=1e9,
    inputs_per_s=1e9,
    mixed_per_s=1e9,
    share_s=0.0,
    product_s=0.0,
    row_bytes_per_s=1e9,
    id_s=0.0,
    table_s=0.0,
    optimizer_bytes_per_s=1e9,
    step_s=1e-3,
)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    path = tmp_path / "rates.json"
    MachineCosts(rates=PRESETS["a100"], fp32=COSTS).save(path)
    return path


def test_a_cluster_is_planned_from_a_file_and_row_counts(config: Path) -> None:
    pytest.importorskip("torchrec")

    text = run(
        config, "--topology", CONFIGS / "topologies/128x80gb.yaml", *ROWS, "--width", 64, "--ids-per-row", "tags=20"
    )

    # Rows of 64 floats and four of the linear part.
    assert "item   10,000,000,001     68  row_wise  0-127    2,720.0000" in text
    assert "3,264.00 GB of weights on 128 cuda workers (16 × 8)" in text
    assert "step of 1,024 rows per worker" in text
    assert "warning: vocabulary: 10,000,000,001 ids of item take" in text
    assert "assumed  ids: one per row and feature (tags 20), popular as Zipf(1.1)" in text
    assert "assumed  device: assumed: 35% of the matrix rate" in text


def test_divided_experts_are_planned_with_what_they_hold_and_send(config: Path) -> None:
    pytest.importorskip("torchrec")
    rows = ["--rows", "user=1e4", "--rows", "item=2e4"]

    text = run(config, "training.experts=over_workers", "training.precision=fp32", *rows, "--workers", 2)

    # Eight experts of 48 inputs; 1,024 rows go to the other worker and 128 numbers from each of its experts come back.
    assert "experts over workers: 181,760 of 363,520 expert parameters on the worker with most" in text
    assert "a worker sends 4.59 MB of rows and gradients to experts of others and back in a step" in text


def test_this_machine_is_planned_with_what_was_measured(config: Path, rates: Path) -> None:
    rows = ["--rows", "user=1e4", "--rows", "item=2e4"]

    made = json.loads(run(config, "tables.backend=plain", "training.precision=fp32", *rows, "--rates", rates, "--json"))

    assert [row["rows"] for row in made["tables"]] == [10_001, 20_001]
    assert made["step"]["parts"]["overhead"] == 1e-3
    assert made["bytes_per_rank"]["total"]["max"] < made["limit_bytes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"give the YAML file of an experiment, or --measure"),
        ([CONFIGS / "ple.yaml", "--rows", "item_id"], r"--rows item_id: a name and a number above zero are needed"),
        ([CONFIGS / "ple.yaml", "--rows", "item_id=-3"], r"--rows item_id=-3: a name and a number above zero"),
        (
            [CONFIGS / "ple.yaml", "--rates", "none.json"],
            r"none\.json: there is no such file; make it with: recmoe plan",
        ),
        (
            [CONFIGS / "ple.yaml", "--workers", 2, "--topology", CONFIGS / "topologies/laptop.yaml"],
            r"--workers is for this machine; a topology file says nodes and devices_per_node",
        ),
    ],
)
def test_what_cannot_be_planned_is_told(arguments: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*arguments)
