"""main_metrics(): the numbers of a report that are shown first, where all would be too many."""

from collections.abc import Iterable


def main_metrics(names: Iterable[str]) -> list[str]:
    """Of each task in each of its spaces the chief metric, in the order given: AUC, else RMSE, else pinball losses."""
    found = list(dict.fromkeys(names))
    chosen: list[str] = []
    for metric in (".auc[", ".rmse[", ".pinball@"):
        tasks = {name.partition(".")[0] for name in chosen}
        chosen += [name for name in found if metric in name and name.partition(".")[0] not in tasks]
    return chosen
