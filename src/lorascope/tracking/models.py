"""Adapters as MLflow's logged models: the files that PEFT loads, never a base or a merged model."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lorascope.files.layout import ADAPTER_FILES
from lorascope.records import MergeRecord, TrialRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_TAG = "lorascope.model"
"""Tag with the id of the logged model of a trial's run."""
MAX_ADAPTER_BYTES = 64 * 2**20
"""Weights of a larger adapter stay where they are: the store would hold each a second time."""
ALIAS = "shipped"


def log_adapter(
    client: MlflowClient, experiment: str, run_id: str, trial: TrialRecord, adapter: Path
) -> str | None:
    """Log the adapter of a completed trial as a model of its run; its id, None without a file."""
    from mlflow.entities import LoggedModelOutput

    files = [adapter / name for name in ADAPTER_FILES if (adapter / name).is_file()]
    if len(files) < len(ADAPTER_FILES) or trial.result is None:
        return None
    size = sum(path.stat().st_size for path in files)
    key = trial.key
    named = {"model": key.model, "data": key.data, "quant": key.quant, "method": key.method}
    params = {**named, "targets": key.targets, **key.dials, "seed": key.seed}
    model = client.create_logged_model(
        experiment, name=trial.trial, source_run_id=run_id, model_type=f"{key.method} adapter",
        params={name: str(value) for name, value in params.items()},
        tags={
            "lorascope.adapter_sha256": trial.result.adapter_sha256,
            "lorascope.has_weights": json.dumps(size <= MAX_ADAPTER_BYTES),
        },
    )  # fmt: skip
    for path in files:
        if size <= MAX_ADAPTER_BYTES or path.suffix == ".json":
            client.log_model_artifact(model.model_id, str(path))
    _log_description(client, model.model_id, run_id, trial, size)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, trial.result.steps)])
    client.set_tag(run_id, MODEL_TAG, model.model_id)
    return str(model.model_id)


def _log_description(
    client: MlflowClient, model_id: str, run_id: str, trial: TrialRecord, adapter_bytes: int
) -> None:
    """The file by which MLflow knows what kind of model it is."""
    from mlflow.models import Model

    description = Model(run_id=run_id, model_id=model_id, model_size_bytes=adapter_bytes)
    versions = trial.provenance.versions
    description.add_flavor(
        "peft", base_model=trial.key.model, base_stored_as=trial.key.quant,
        base_sha256=str(trial.settings.get("base")), peft_version=versions.get("peft"),
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        description.save(str(Path(folder) / "MLmodel"))
        client.log_model_artifact(model_id, str(Path(folder) / "MLmodel"))


def register(client: MlflowClient, name: str, model_id: str, merge: MergeRecord) -> str:
    """Make the shipped trial's adapter a version of the registered model `name`, with the alias
    'shipped'; the version, which is an older one where it is registered already."""
    _ensure_registered(client, name)
    model = client.get_logged_model(model_id)
    versions = client.search_model_versions(f"name = '{name}'")
    known = [one for one in versions if one.tags.get("lorascope.trial") == merge.trial]
    version = known[0] if known else client.create_model_version(
        name, source=model.artifact_location, run_id=model.source_run_id, model_id=model_id,
        tags={"lorascope.trial": merge.trial, "lorascope.chosen_by": merge.chosen_by,
              "lorascope.merged_sha256": merge.content_sha256},
    )  # fmt: skip
    client.set_registered_model_alias(name, ALIAS, version.version)
    return str(version.version)


def _ensure_registered(client: MlflowClient, name: str) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
