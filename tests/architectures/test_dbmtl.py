"""DBMTL: the network of the tasks row by row, whom a task depends on, and relations that make no sense."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures.dbmtl import DBMTL, DBMTLConfig
from recmoe.axes import describe
from recmoe.conformance import PROPERTIES, subject_of
from recmoe.conformance.loop import equal_to_loop
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

TASKS = ("stay", "click", "buy", "like")
RELATIONS: dict[str, tuple[str, ...]] = {"buy": ("click",), "stay": ("click", "buy")}
BINARY = {name: {"kind": "binary", "label": name} for name in TASKS}


def network_of(relations: dict[str, tuple[str, ...]] | None = RELATIONS) -> Any:
    torch.manual_seed(0)
    config = DBMTLConfig(relations=relations, shared_hidden=(5,), hidden=(4,), relation_hidden=(4, 3))
    return config.build(in_features=6, task_names=TASKS).double().eval()


def relation_row(relation: Any, q_H: Tensor, parents: list[Tensor]) -> Tensor:
    """The layer of a task's network and of its parents side by side, then the others."""
    weight = torch.cat([relation.own.weight, *(link.weight for link in relation.links)], dim=1)
    h_H = torch.relu(weight @ torch.cat([q_H, *parents]) + relation.own.bias)
    for layer in relation.layers:
        h_H = torch.relu(layer.weight @ h_H + layer.bias)
    return h_H


def dbmtl_row(network: DBMTL, x_D: Tensor) -> Tensor:
    """Parents first: stay reads click and buy, buy reads click."""
    shared, own = network.shared, network.own
    s_H = torch.relu(shared.weights_EOD[0][0] @ x_D + shared.biases_EO[0][0])
    h: dict[str, Tensor] = {}
    for name in ("like", "click", "buy", "stay"):
        at = TASKS.index(name)
        q_H = torch.relu(own.weights_EOD[0][at] @ s_H + own.biases_EO[0][at])
        h[name] = relation_row(network.relations[at], q_H, [h[parent] for parent in RELATIONS.get(name, ())])
    return torch.stack([h[name] for name in TASKS])


@pytest.mark.parametrize("num_rows", [1, 5])
def test_representations_equal_loop_written_from_the_paper(num_rows: int) -> None:
    network = network_of()

    equal_to_loop(
        network,
        lambda x_BD: torch.stack(network(x_BD)[0], dim=1),
        lambda x_D: dbmtl_row(network, x_D),
        num_rows=num_rows,
    )


def test_task_without_relations_of_its_own_depends_on_none() -> None:
    links = [relation.link_names for relation in network_of().relations]

    assert links == [("click→stay", "buy→stay"), (), ("click→buy",), ()]
    assert [len(relation.links) for relation in network_of(None).relations] == [0, 1, 2, 3]


def test_gradients_flow_along_the_declared_graph() -> None:
    overrides = ["relations={rate: [click], buy: [rate]}", "hidden=[16]"]
    [flow] = [one for one in PROPERTIES["architecture"] if one.name == "gradients flow as declared"]

    outcome = flow.of(subject_of(DBMTLConfig, overrides=overrides))

    assert outcome.verdict == "passed", outcome.sentence
    [_, own] = DBMTLConfig(relations={"rate": ("click",), "buy": ("rate",)}).flow(("click", "buy", "rate"))
    assert own.owners_by_task == {"click": {"click"}, "rate": {"rate", "click"}, "buy": {"buy", "rate", "click"}}


def test_link_keeps_its_name_when_a_task_stands_in_front() -> None:
    names = {one.name for one in describe(network_of(None)).values()}

    assert {"relations[buy].links[click→buy].weight", "relations[buy].links[stay→buy].weight"} <= names


@pytest.mark.parametrize(
    ("relations", "problem"),
    [
        ({"buy": ("pay",)}, "no such task with a tower: pay (there are stay, click, buy, like)"),
        ({"pay": ("buy",)}, "no such task with a tower: pay (there are stay, click, buy, like)"),
        ({"buy": ("click", "click")}, "buy names click twice; drop one"),
        (
            {"buy": ("click",), "click": ("buy",)},
            "tasks depend on each other in a circle: buy → click → buy; drop one of these links",
        ),
        ({"buy": ("buy",)}, "tasks depend on each other in a circle: buy → buy; drop one of these links"),
    ],
)
def test_relations_that_make_no_sense_are_refused(relations: dict[str, tuple[str, ...]], problem: str) -> None:
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(BINARY))

    problems = list(DBMTLConfig(relations=relations).task_problems(tasks, ()))

    assert problems == [("relations", problem)]
