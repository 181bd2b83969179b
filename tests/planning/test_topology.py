from pathlib import Path

import pytest

from recmoe.config import config_from_dict
from recmoe.errors import ConfigError
from recmoe.planning.topology import PRESETS, Topology, load_topology

TOPOLOGIES = sorted((Path(__file__).parents[2] / "configs/topologies").glob("*.yaml"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_every_topology_file_loads(path: Path) -> None:
    assert load_topology(path).world_size > 0


def test_sixteen_nodes_of_eight_are_128_workers() -> None:
    topology = load_topology(Path(__file__).parents[2] / "configs/topologies/128x80gb.yaml")

    assert topology.world_size == 128
    assert topology.known_rates == PRESETS["h100"]
    # A fifth is left to the dense part and to batches.
    assert topology.table_bytes == pytest.approx(64e9)


def test_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text("memory_gb: 80\nnode: 2\n")

    with pytest.raises(ConfigError, match=r"topology\.yaml:2  node: unknown key, did you mean nodes\?"):
        load_topology(path)


def test_rates_may_be_written_into_a_topology() -> None:
    rates = PRESETS["a100"].model_dump()

    topology = config_from_dict(Topology, {"memory_gb": 80, "rates": rates})

    assert topology.known_rates == PRESETS["a100"]
