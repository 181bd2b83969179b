"""The state of every global random generator, as JSON."""

import random
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """States of torch, CUDA's current device, NumPy and Python."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, normal = random.getstate()
    state: dict[str, Any] = {
        "torch": _to_hex(torch.get_rng_state()),
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "python": [version, list(words), normal],
    }
    if torch.cuda.is_available():
        state["cuda"] = _to_hex(torch.cuda.get_rng_state())
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Set every generator that the state knows and that is here."""
    torch.set_rng_state(_from_hex(state["torch"]))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, words, normal = state["python"]
    random.setstate((version, tuple(words), normal))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_from_hex(state["cuda"]))


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
