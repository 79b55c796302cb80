"""The main job and its weekly schedule, which is stopped until someone starts it in the UI."""

import dagster as dg

rlpf_job = dg.define_asset_job(
    "rlpf_pipeline",
    selection=dg.AssetSelection.all(),
    description="From raw multitext ads to the A/B report. What is up to date is kept.",
)

weekly_retraining = dg.ScheduleDefinition(
    name="weekly_retraining",
    job=rlpf_job,
    cron_schedule="0 6 * * 1",
    description="Every Monday at 06:00 UTC: train again on what the ads have earned since.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
