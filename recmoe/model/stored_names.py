"""current_name(): what a dense weight is called today, from what a checkpoint or a bundle calls it."""

import re

_BEFORE_MODELS = re.compile(r"^((?:dense/|dense_optimizer/)?(?:ranker\.)?)(architecture|towers)\.")


def current_name(name: str) -> str:
    """The name of a stored weight in a model of today.

    Example::

        towers.0.layers.0.bias                      model.towers.0.layers.0.bias
        dense/ranker.architecture.layer.gates.0…    dense/ranker.model.architecture.layer.gates.0…
    """
    return _BEFORE_MODELS.sub(r"\1model.\2.", name)
