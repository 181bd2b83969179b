"""generator_of(): the draws of a step, which depend on seed and step alone."""

import hashlib

import torch


def generator_of(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Another one for every seed and step: a step that is taken ahead, or again by a resumed run, draws alike."""
    # Generators of seeds that follow each other draw alike; those of hashes do not.
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
