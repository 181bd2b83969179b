import pytest
import torch

from recmoe.tasks.tower import TowerConfig


@pytest.mark.parametrize("logits", [("a",), ("a", "b", "c")])
def test_tower_gives_the_logits_of_its_task_per_row(logits: tuple[str, ...]) -> None:
    tower = TowerConfig(hidden=(4, 3)).build(in_features=5, logits=logits)

    assert tower(torch.zeros(7, 5)).shape == (7, len(logits))
    assert tower(torch.zeros(1, 5)).shape == (1, len(logits))


def test_tower_without_hidden_layers_is_linear() -> None:
    tower = TowerConfig(hidden=()).build(in_features=2, logits=("a",))

    h_BH = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    first, second, third = tower(h_BH)[:, 0].tolist()

    assert third - second == pytest.approx(second - first, abs=1e-6)


def test_dropout_acts_in_training_only() -> None:
    tower = TowerConfig(hidden=(64,), dropout=0.5).build(in_features=2, logits=("a",))
    h_BH = torch.ones(1, 2)

    assert not torch.equal(tower(h_BH), tower(h_BH))
    tower.eval()
    assert torch.equal(tower(h_BH), tower(h_BH))
