"""Every file in bad_configs fails with the message that stands beside it in a text file."""

from pathlib import Path

import pytest

from recmoe.errors import ConfigError
from recmoe.experiment import load_experiment

FOLDER = Path(__file__).parent / "bad_configs"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def in_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    monkeypatch.delenv("RECMOE_NO_SUCH_VARIABLE", raising=False)


@pytest.mark.parametrize("name", FILES)
def test_bad_config_fails_with_its_exact_message(name: str) -> None:
    path = Path(name)

    with pytest.raises(ConfigError) as caught:
        load_experiment(path)

    assert str(caught.value) == path.with_suffix(".txt").read_text().rstrip("\n")


def test_what_the_bad_configs_extend_is_valid_by_itself() -> None:
    config = load_experiment(Path("bases/shop.yaml"))

    assert config.name == "shop"


def test_override_error_says_command_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(Path("bases/shop.yaml"), ["model.architecture.kind=mmoe", "model.architecture.num_levels=2"])

    assert str(caught.value).startswith("command line  model.architecture.num_levels: unknown key, ")
