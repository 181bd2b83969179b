from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.evaluation import predict
from recmoe.evaluation.evaluate import EvaluationConfig, evaluate
from recmoe.evaluation.predict import Scored, _Share, predict_rows
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import MultiTaskRanker
from recmoe.moe.segment_use import ALL


@pytest.fixture
def stream(shop_log: pa.Table, tmp_path: Path) -> ParquetStream:
    pq.write_table(shop_log.slice(0, 31), tmp_path / "log.parquet", row_group_size=10)
    return ParquetStream([str(tmp_path / "log.parquet")], seed=0, shuffle_rows=None, cache_dir=tmp_path)


def scored_by(
    num_ranks: int, stream: ParquetStream, encoder: FeatureEncoder, model: MultiTaskRanker, batch_size: int
) -> Scored:
    """What the first of some ranks gets, after the others have given it their shares."""
    shares: list[_Share] = []

    def give(share: _Share) -> list[_Share]:
        shares.append(share)
        return [share]

    def take(share: _Share) -> list[_Share]:
        return [share, *shares]

    for rank in range(1, num_ranks):
        loader = BatchLoader(stream, encoder, batch_size=batch_size, rank=rank, world_size=num_ranks)
        predict_rows(model, loader, slices=["hour"], gather=give)
    loader = BatchLoader(stream, encoder, batch_size=batch_size, world_size=num_ranks)
    return predict_rows(model, loader, slices=["hour"], gather=take)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_every_row_is_scored_once_in_file_order(
    num_ranks: int,
    stream: ParquetStream,
    shop_log: pa.Table,
    shop_encoder: FeatureEncoder,
    shop_model: MultiTaskRanker,
) -> None:
    rows = shop_log.slice(0, 31)
    with torch.no_grad():
        expected_NT = shop_model.predict(shop_encoder.encode(rows)).numpy()

    found = scored_by(num_ranks, stream, shop_encoder, shop_model, batch_size=4).predictions

    np.testing.assert_allclose(found.predictions_NT, expected_NT, rtol=1e-5)
    assert found.task_names == ("ctr", "cvr", "ctcvr")
    np.testing.assert_array_equal(found.labels_NT[:, 0], rows["click"].to_numpy())
    # cvr counts among clicks alone.
    np.testing.assert_array_equal(found.weights_NT[:, 1], rows["click"].to_numpy())
    np.testing.assert_array_equal(found.slices["hour"], rows["hour"].to_numpy())
    assert found.groups_N is not None
    assert len(set(found.groups_N.tolist())) == 7
    assert found.spaces == {"ctr": "all", "cvr": "click", "ctcvr": "all"}
    assert found.kinds == dict.fromkeys(found.task_names, "binary")


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_use_of_experts_is_that_of_the_rows_however_they_are_batched_and_shared_out(
    num_ranks: int, stream: ParquetStream, shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker
) -> None:
    (whole,) = scored_by(1, stream, shop_encoder, shop_model, batch_size=31).usages

    (pieces,) = scored_by(num_ranks, stream, shop_encoder, shop_model, batch_size=7).usages

    assert (pieces.num_rows, whole.num_rows) == (31, 31)
    torch.testing.assert_close(pieces.usage_GE, whole.usage_GE, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_use_of_experts_is_cut_by_slices_and_by_the_rows_of_a_task(
    num_ranks: int,
    stream: ParquetStream,
    shop_log: pa.Table,
    shop_encoder: FeatureEncoder,
    shop_model: MultiTaskRanker,
) -> None:
    rows = shop_log.slice(0, 31)
    with torch.no_grad():
        (use,) = shop_model(shop_encoder.encode(rows)).gate_uses
    hours, clicks = rows["hour"].to_numpy(), rows["click"].to_numpy()

    (level,) = scored_by(num_ranks, stream, shop_encoder, shop_model, batch_size=4).levels

    found = level.by_segment
    assert found.gates == ("ctr", "cvr")
    assert len(found.segments) == 1 + len(set(hours.tolist()))
    assert found.num_rows_S.tolist() == [31, *sorted((np.bincount(hours)[np.unique(hours)]).tolist(), reverse=True)]
    for segment, usage_GE, rows_G in zip(found.segments, found.usage_SGE, found.num_rows_SG.tolist(), strict=True):
        is_in = np.ones(31, dtype=bool) if segment == ALL else hours == int(segment.removeprefix("hour="))
        # The gate of cvr is measured among clicks alone, as its metrics are.
        for gate, counts in enumerate((is_in, is_in & (clicks == 1))):
            assert rows_G[gate] == counts.sum()
            if counts.any():
                expected_E = use.weights_BGE[torch.from_numpy(counts), gate].mean(dim=0).double()
                torch.testing.assert_close(usage_GE[gate], expected_E, rtol=1e-5, atol=1e-7)


def test_segments_are_the_slices_of_the_report(
    stream: ParquetStream, shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker
) -> None:
    loader = BatchLoader(stream, shop_encoder, batch_size=7)
    config = EvaluationConfig(slices=("hour", "age"), max_slice_values=3, num_resamples=0)

    scored = predict_rows(shop_model, loader, slices=config.slices, max_slice_values=3)

    report = evaluate(scored.predictions, config=config)
    (level,) = scored.levels
    assert level.by_segment.segments == (ALL, *dict.fromkeys(row.slice for row in report.rows if row.slice))
    # Ages are whole numbers in some batches, and floats in those that lack one.
    assert "age=(other)" in level.by_segment.segments


def test_slices_need_not_be_kept(
    stream: ParquetStream, shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker
) -> None:
    loader = BatchLoader(stream, shop_encoder, batch_size=7)

    scored = predict_rows(shop_model, loader, slices=["hour"], keeps_slices=False)

    assert not scored.predictions.slices
    assert len(scored.levels[0].by_segment.segments) > 1


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_experts_are_compared_on_some_rows_of_every_worker(
    num_ranks: int,
    shop_log: pa.Table,
    shop_encoder: FeatureEncoder,
    shop_model: MultiTaskRanker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pq.write_table(shop_log, tmp_path / "all.parquet")
    stream = ParquetStream([str(tmp_path / "all.parquet")], seed=0, shuffle_rows=None, cache_dir=tmp_path)
    monkeypatch.setattr(predict, "PROBED_BATCHES", 3)
    monkeypatch.setattr(predict, "PROBED_ROWS", 3 * 20)

    (level,) = scored_by(num_ranks, stream, shop_encoder, shop_model, batch_size=25).levels

    # Of 8 batches every second; of the 4 batches of each of two workers all.
    assert level.similarity.num_rows[ALL] == {1: 4 * 20, 2: 2 * 4 * 20}[num_ranks]
    cka_EE = level.similarity.cka(ALL)
    assert cka_EE is not None
    assert level.similarity.experts == level.usage.experts
    torch.testing.assert_close(cka_EE.diagonal(), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("is_training", [True, False])
def test_model_scores_in_evaluation_mode_and_is_left_as_it_was(
    is_training: bool, stream: ParquetStream, shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker
) -> None:
    seen: list[bool] = []
    hook = shop_model.model.towers[0].register_forward_pre_hook(lambda module, _: seen.append(module.training))
    shop_model.train(is_training)
    try:
        predict_rows(shop_model, BatchLoader(stream, shop_encoder, batch_size=16))
        after = shop_model.training
    finally:
        hook.remove()
        shop_model.eval()

    assert seen == [False, False]
    assert after is is_training


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_shares_of_gates_are_kept_row_by_row_where_there_are_slices(
    num_ranks: int,
    stream: ParquetStream,
    shop_log: pa.Table,
    shop_encoder: FeatureEncoder,
    shop_model: MultiTaskRanker,
) -> None:
    with torch.no_grad():
        (use,) = shop_model.eval()(shop_encoder.encode(shop_log.slice(0, 31))).gate_uses

    found = scored_by(num_ranks, stream, shop_encoder, shop_model, batch_size=4)

    assert found.shares.keys() == {f"level 0, gate {gate}" for gate in use.gates}
    for gate, shares_NV in zip(use.gates, use.weights_BGE.unbind(1), strict=True):
        np.testing.assert_allclose(found.shares[f"level 0, gate {gate}"], shares_NV.numpy(), rtol=1e-5, atol=1e-6)
    without = predict_rows(shop_model, BatchLoader(stream, shop_encoder, batch_size=31))
    assert without.shares == {}
