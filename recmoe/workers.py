"""What all workers of a job have together; alone, a process is all of them."""

from torch import Tensor
from torch import distributed as dist


def num_workers() -> int:
    """Processes that train one model."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_workers(values: Tensor) -> Tensor:
    """The sum of every worker's values, the same in each; collective."""
    if num_workers() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def mean_over_workers(values: Tensor) -> Tensor:
    """The mean of every worker's values, the same in each; collective."""
    return values if num_workers() == 1 else sum_over_workers(values) / num_workers()
