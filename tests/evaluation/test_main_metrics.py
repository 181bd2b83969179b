from recmoe.evaluation.main_metrics import main_metrics


def test_every_task_has_its_chief_metric_first_auc_then_rmse_then_pinball_losses() -> None:
    names = [
        "late.pinball@0.5[all]",
        "late.coverage@0.5[all]",
        "late.pinball@0.9[all]",
        "stars.rmse[all]",
        "stars.accuracy[all]",
        "ctr.logloss[all]",
        "ctr.auc[all]",
        "ctr.auc[all]",
    ]

    chosen = main_metrics(names)

    assert chosen == ["ctr.auc[all]", "stars.rmse[all]", "late.pinball@0.5[all]", "late.pinball@0.9[all]"]
