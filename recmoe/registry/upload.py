"""What of a bundle goes into the registry: its files as an MLflow model, its facts as tags."""

import shutil
import tempfile
import warnings
from pathlib import Path

from mlflow import MlflowClient

from recmoe.evaluation.main_metrics import main_metrics
from recmoe.export.contents import MANIFEST
from recmoe.export.delta import DELTA, Delta
from recmoe.ranking.ranker import Ranker
from recmoe.registry.artifacts import LOADER_MODULE, bundle_folder
from recmoe.registry.chain import DELTA_OF, DIGEST
from recmoe.registry.pyfunc import input_example, requirements, signature
from recmoe.tracking.tracker import metric_name

with warnings.catch_warnings():
    # MLflow warns of its own code, here while it is imported and below while it saves a model.
    warnings.simplefilter("ignore")
    import mlflow.pyfunc


def upload(client: MlflowClient, model_id: str, bundle: Path, ranker: Ranker, *, delta: Delta | None = None) -> None:
    """Store a bundle as an MLflow model. Tables go straight from the bundle, for they may be large.

    Args:
        delta: what is sent in the place of the whole bundle.
    """
    source, first = (bundle, MANIFEST) if delta is None else (delta.path, DELTA)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        head = Path(folder) / ("bundle" if delta is None else "delta")
        head.mkdir()
        shutil.copy(source / first, head)
        model = Path(folder) / "model"
        mlflow.pyfunc.save_model(
            str(model),
            loader_module=LOADER_MODULE,
            data_path=str(head),
            signature=signature(ranker),
            input_example=input_example(ranker),
            pip_requirements=requirements(ranker),
        )
        inside = bundle_folder(model).relative_to(model).as_posix()
        client.log_model_artifacts(model_id, str(model))
    client.log_model_artifacts(model_id, str(source), inside)


def facts(ranker: Ranker, *, delta: Delta | None = None) -> dict[str, str]:
    """What a version is found and judged by, as tags."""
    bundle = ranker.bundle
    tags = {
        DIGEST: bundle.digest,
        "recmoe.feature_schema_hash": bundle.encoder.fingerprint,
        "recmoe.tasks": ",".join(bundle.tasks.names),
    }
    if delta is not None:
        tags[DELTA_OF] = f"{delta.base.name}/{delta.base.version}"
    if bundle.lineage is not None:
        tags |= bundle.lineage.tags()
    if bundle.report is not None:
        values = bundle.report.values()
        # The report has all of them; a page with a hundred tags is not read.
        for metric in main_metrics(values):
            value = values[metric]
            tags[metric_name("recmoe.eval", metric).replace("/", ".")] = f"{value:.6g}"
    return tags
