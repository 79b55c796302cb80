from pathlib import Path

from mlflow import MlflowClient
from sqlalchemy import make_url

from rlpf_pipeline.defs.tracking import Tracking
from rlpf_pipeline.profiles import load_settings


def test_the_store_is_where_the_home_is_whatever_its_name(tmp_path: Path) -> None:
    settings = load_settings("tiny", (), tmp_path / "50%20off? yes")
    store = settings.instance / "mlflow.db"
    assert make_url(settings.mlflow_uri).database == str(store)
    settings.instance.mkdir()
    Tracking(settings).start("reward_model", {})
    assert store.is_file()


def test_a_store_that_was_removed_does_not_hide_the_jobs_error(tmp_path: Path) -> None:
    settings = load_settings("tiny", (), tmp_path)
    tracking = Tracking(settings)
    failed, gone = tracking.start("reward_model", {}), tracking.start("adllama", {})
    tracking.fail(failed)
    assert MlflowClient(tracking_uri=settings.mlflow_uri).get_run(failed.run_id).info.status == "FAILED"
    (settings.instance / "mlflow.db").unlink()
    tracking.fail(gone)


def test_a_deleted_experiment_is_restored(tmp_path: Path) -> None:
    settings = load_settings("tiny", (), tmp_path)
    tracking, client = Tracking(settings), MlflowClient(tracking_uri=settings.mlflow_uri)
    before = tracking.start("reward_model", {})
    client.delete_experiment(before.experiment_id)
    after = tracking.start("reward_model", {})
    assert after.experiment_id == before.experiment_id
    assert client.get_experiment(after.experiment_id).lifecycle_stage == "active"
