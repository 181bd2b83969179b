"""ranking_device(): the device that a setting names, if this process can rank there."""

import re

import torch

from recmoe.errors import ServingError

DEVICE_PATTERN = r"cpu|cuda|cuda:\d+"
"""What may be given: the processor, the first GPU, or one by its number."""


def ranking_device(name: str) -> torch.device:
    """The device of a name; ``cuda`` is the first GPU.

    Raises:
        ServingError: there is no such device, or torch is not made for it.
    """
    if not re.fullmatch(DEVICE_PATTERN, name):
        raise ServingError(f"device: {name} is none; give cpu, cuda or cuda:N")
    if name == "cpu":
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if torch.version.cuda is None:
        raise ServingError(
            f"device {name}: torch {torch.__version__} is built without CUDA; install a build with it "
            "(requirements/cuda.lock, as the README says), or serve on the CPU: device cpu"
        )
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not num_gpus:
        raise ServingError(
            f"device {name}: torch {torch.__version__} finds no GPU that it can use; see what nvidia-smi and "
            "CUDA_VISIBLE_DEVICES say, or serve on the CPU: device cpu"
        )
    if index >= num_gpus:
        there = ", ".join(f"cuda:{number}" for number in range(num_gpus))
        raise ServingError(f"device {name}: there is no such GPU; there are: {there}")
    return torch.device("cuda", index)


def check_float32(device: torch.device) -> None:
    """ServingError where torch multiplies float32 on a GPU in TF32: predictions would not be those of training."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda" and precision != "highest":
        raise ServingError(
            f"device {device}: float32 is multiplied in TF32 here, whose predictions are not the trained model's; "
            f'undo torch.set_float32_matmul_precision("{precision}"), or ask for precision bf16'
        )
