"""FittedModel: what a finished run left behind, at hand in a notebook."""

import html
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from recmoe.config import dump_config
from recmoe.evaluation.baselines import Estimate, heading
from recmoe.evaluation.report import Report, metric_name
from recmoe.evaluation.summary_table import MAIN_METRICS, verdict_in_words
from recmoe.experiment import ExperimentConfig
from recmoe.face.frames import Rows, as_files, in_python_words
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest, RankResponse
from recmoe.runs.export import export_run, run_bundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.predictions import write_predictions
from recmoe.runs.source import RUNS, load_ranker

if TYPE_CHECKING:
    from recmoe.registry.registry import RegisteredBundle


class FittedModel:
    """A trained model with its report; ``predict`` and ``rank`` are those of the command line.

    Args:
        run_dir: folder of the finished run.
        config: what was trained.
        config_yaml: the config as it was written; by default the resolved one.
        report: metrics of the test split; None without one.
        owned: a folder that goes when the model goes.
    """

    def __init__(
        self,
        run_dir: Path,
        config: ExperimentConfig,
        *,
        config_yaml: str | None = None,
        report: Report | None,
        owned: Path | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.config = config
        self.config_yaml = config_yaml or yaml.safe_dump(dump_config(config), sort_keys=False, allow_unicode=True)
        self.report = report
        if owned is not None:
            weakref.finalize(self, shutil.rmtree, owned, ignore_errors=True)

    @cached_property
    def ranker(self) -> Ranker:
        """The model as it is served; its replay is checked."""
        return load_ranker(str(self.run_dir))

    def predict(self, data: Rows, *, keep: Sequence[str] = (), score: str | None = None) -> pd.DataFrame:
        """A row of predictions per row of the data, in its order; see ``recmoe predict``.

        Args:
            data: a frame with the columns of the log, or files.
            keep: columns to copy; by default the model's item and group columns.
            score: name of a score formula; the default one otherwise.

        Raises:
            DataError, SchemaError: the rows cannot be read, or lack a column.
            RequestError: there is no formula of that name.
        """
        with tempfile.TemporaryDirectory(prefix="recmoe-") as folder, in_python_words():
            target = Path(folder) / "predictions.parquet"
            files = as_files(data, Path(folder) / "rows.parquet")
            write_predictions(self.ranker, files, target, keep=keep, score=score)
            predicted = pd.read_parquet(target)
        if isinstance(data, pd.DataFrame):
            predicted.index = data.index
        return predicted

    def rank(self, request: RankRequest | Mapping[str, Any] | str) -> RankResponse:
        """Order the candidates of a request, given as the body of POST /v1/rank or as a dictionary.

        Raises:
            RequestError: a field does not fit; it is named.
        """
        parsed = request if isinstance(request, RankRequest) else RankRequest.parse(request)
        return self.ranker.rank(parsed)

    def save(self, path: str | Path) -> Path:
        """Copy the bundle to a folder, verify it and replay its requests; see ``recmoe export``.

        Raises:
            TrainingError: the folder exists.
        """
        export_run(RunFolder(self.run_dir), Path(path))
        return Path(path)

    def register(
        self, name: str | None = None, *, registry: str | None = None, delta_of: str | None = None
    ) -> "RegisteredBundle":
        """Make a new version in the registry; see ``recmoe register``.

        Args:
            name: of the model; that of the config by default.
            registry: its URI; by default MLFLOW_TRACKING_URI, else the one in ``runs/``.
            delta_of: an alias or a number of the same model; only what differs from it is sent.

        Raises:
            RegistryError: the registry fails, or has no such version.
        """
        from recmoe.registry.registry import Registry

        folder = RunFolder(self.run_dir)
        run_id = folder.state.get("tracking_run_id")
        return Registry.connect(registry, folder=RUNS).register(
            run_bundle(folder), name=name, run_id=run_id, base=delta_of, cache=RUNS / "cache"
        )

    def metrics(self) -> pd.DataFrame:
        """The short table: AUC or RMSE of every task beside its baselines, with a verdict in words."""
        report = self.report or Report((), 0, 0)
        frame = report.frame()
        frame = frame[frame["metric"].isin(MAIN_METRICS)].reset_index(drop=True)
        if report.baselines is None:
            return frame
        found = report.baselines
        names = [metric_name(task, metric, space) for task, metric, space in frame.iloc[:, :3].itertuples(index=False)]
        for kind, values in found.values.items():
            frame[heading(kind, names)] = [values.get(name, Estimate(None)).value for name in names]
        frame["the model is"] = [
            verdict_in_words([one for one in found.comparisons if one.task == task]) for task in frame["task"]
        ]
        return frame

    def __repr__(self) -> str:
        return (
            f"FittedModel({self.config.name}, run_dir={str(self.run_dir)!r})\n{self.metrics().to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        kind = self.config.model.architecture.kind
        title = f"<b>{html.escape(self.config.name)}</b>, {kind}, {html.escape(str(self.run_dir))}"
        if self.report is None:
            return f"<p>{title}: there is no test split</p>"
        table = self.metrics().to_html(index=False, float_format="{:.4f}".format, na_rep="–", border=0)
        warnings = self.report.baselines.warnings if self.report.baselines is not None else []
        told = "".join(f"<p>warning: {html.escape(text)}</p>" for text in warnings)
        return f"<p>{title}; {self.report.num_rows:,} rows of the test split</p>{table}{told}"
