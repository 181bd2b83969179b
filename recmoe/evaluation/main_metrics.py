"""main_metrics(): the numbers of a report that are shown first, where all would be too many."""

from collections.abc import Iterable


def main_metrics(names: Iterable[str]) -> list[str]:
    """Of each task in each of its spaces the chief metric, in the order given: AUC, else RMSE."""
    found = list(dict.fromkeys(names))
    aucs = [name for name in found if ".auc[" in name]
    tasks = {name.rpartition(".auc[")[0] for name in aucs}
    return aucs + [name for name in found if ".rmse[" in name and name.rpartition(".rmse[")[0] not in tasks]
