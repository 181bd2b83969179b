from recmoe.ranking.prediction_columns import explanation_column, kept_columns, score_column


def test_score_gives_way_to_a_task_of_its_name() -> None:
    assert score_column(["ctr", "cvr"]) == "score"
    assert score_column(["score", "ctr"]) == "ranking_score"
    assert score_column(["score", "ranking_score"]) == "ranking_ranking_score"
    assert explanation_column(["score"]) == "explanation"
    assert explanation_column(["explanation"]) == "ranking_explanation"


def test_kept_column_named_like_a_prediction_gets_a_prefix() -> None:
    assert kept_columns(["click", "item", "click"], ["click", "score"]) == {"click": "log_click", "item": "item"}
    assert kept_columns(["score"], ["click", "score"]) == {"score": "log_score"}
    assert kept_columns(["click", "log_click"], ["click"]) == {"click": "log_log_click", "log_click": "log_click"}
