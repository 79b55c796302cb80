from pathlib import Path

from mlflow import MlflowClient

from rlpf_pipeline.defs.tracking import Tracking
from rlpf_pipeline.profiles import load_settings


def test_a_deleted_experiment_is_restored(tmp_path: Path) -> None:
    settings = load_settings("tiny", (), tmp_path)
    tracking, client = Tracking(settings), MlflowClient(tracking_uri=settings.mlflow_uri)
    before = tracking.start("reward_model", {})
    client.delete_experiment(before.experiment_id)
    after = tracking.start("reward_model", {})
    assert after.experiment_id == before.experiment_id
    assert client.get_experiment(after.experiment_id).lifecycle_stage == "active"
