"""What each stage does that trains nothing: data, warehouse tables, experiment, report.

Assets and the command line call these; each does nothing when its output is up to date. The libraries are imported
where they are used, so that Dagster's processes stay small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from rlpf_pipeline.artifacts import Metrics, read_manifest, require_as_written, whole
from rlpf_pipeline.defs.building import Outcome, alone, alone_with_warehouse, build, build_table, outcome_of
from rlpf_pipeline.defs.stages import (
    files_to_ingest,
    folder_of,
    is_still,
    manifest_of,
    require_made_from_what_is_there,
)
from rlpf_pipeline.errors import UserError, listed
from rlpf_pipeline.settings import Settings

NO_EXPERIMENT = "The ads are real: no click truth is planted there to simulate an experiment with, so it is skipped."


def raw_multitext_ads(settings: Settings, on_progress: Callable[[str], None] = lambda doing: None) -> Outcome:
    """Ingest the user's files, or simulate the market's history.

    The settings' data may be patterns, read anew each time. Files ingested before stay: new ones are added to them.
    Raises UserError where there are neither, or where one that has to be read again is gone or was changed.
    """
    from rlpf_pipeline.sources.files import matching

    if settings.source == "market" and settings.data:
        raise UserError(
            f"Profile '{settings.profile}' simulates its own ads and takes no data. For your own files choose "
            "PROFILE=upworthy (Upworthy's columns) or PROFILE=production (columns of raw_multitext_ads)."
        )
    if settings.source != "market" and not settings.data:
        require_ingested(settings)
        return outcome_of("raw_multitext_ads", settings, reused=True)
    settings = settings.model_copy(update={"data": matching(str(path) for path in settings.data)})
    missing = [path for path in settings.data if not path.is_file()]
    if missing:
        raise UserError(f"No such file: {listed(missing)}. Paths are relative to where the command is started.")
    return build("raw_multitext_ads", settings, lambda folder: ingest_into(folder, settings, on_progress))


def require_ingested(settings: Settings) -> None:
    """Raises UserError where no raw table is there, or a file of it is gone."""
    folder = folder_of("raw_multitext_ads", settings)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"Profile '{settings.profile}' needs data: DATA=file.csv with make, --data with rlpf.")
    gone = [str(path) for name in manifest.files if not (path := whole(folder) / name).is_file()]
    if gone:
        raise UserError(
            f"Missing of the raw table: {', '.join(gone)}. Put them back, or `rlpf ingest` once more one of the files "
            f"it was made from, by which all are read anew: {listed(manifest.recipe.inputs)}."
        )


def ingest_into(folder: Path, settings: Settings, on_progress: Callable[[str], None]) -> Metrics:
    from rlpf_pipeline.sources.ingest import ingest

    if settings.source != "market":
        files = files_to_ingest(settings)
        gone = [path for path, digest in files.items() if not is_still(path, digest)]
        if gone:
            raise UserError(
                f"Ingested before and gone or changed since: {listed(gone)}. The raw table is made anew from all "
                "files and would lose those rows: put them back, name those that were moved or changed beside the new "
                "ones, or name all files to keep with --replace."
            )
        paths = [Path(path) for path in files]
        return ingest(paths, settings.source, folder, settings.ingest, on_progress)._asdict()
    import pyarrow.parquet as pq

    from rlpf_pipeline.market.history import simulate_history

    with TemporaryDirectory() as scratch:
        simulated = Path(scratch) / "simulated_market.parquet"
        pq.write_table(simulate_history(settings.market), simulated)
        return ingest((simulated,), "generic", folder)._asdict()


def variant_performance(settings: Settings) -> Outcome:
    from rlpf_pipeline.preferences.stages import build_variant_performance
    from rlpf_pipeline.warehouse import Warehouse

    def work() -> Metrics:
        require_as_written(raw)
        with Warehouse(settings.warehouse, restoring=True) as warehouse:
            file = whole(raw) / "multitext_ads.parquet"
            return build_variant_performance(warehouse, file, settings.pairs, settings.seed)

    with alone(folder_of("raw_multitext_ads", settings)) as raw:  # it is read several times
        return build_table("variant_performance", settings, work)


def preference_pairs(settings: Settings) -> Outcome:
    from rlpf_pipeline.preferences.stages import build_preference_pairs
    from rlpf_pipeline.warehouse import Warehouse

    def work() -> Metrics:
        with Warehouse(settings.warehouse, restoring=True) as warehouse:
            return build_preference_pairs(warehouse, settings.pairs)

    return build_table("preference_pairs", settings, work)


def preference_snapshot(settings: Settings) -> Outcome:
    from rlpf_pipeline.preferences.stages import export_snapshot
    from rlpf_pipeline.warehouse import Warehouse

    def work(folder: Path) -> Metrics:
        require_made_from_what_is_there("preference_pairs", settings)
        with Warehouse(settings.warehouse) as warehouse:
            return export_snapshot(warehouse, folder)

    with alone_with_warehouse(settings):
        return build("preference_snapshot", settings, work)


def ab_experiment(settings: Settings) -> Outcome:
    """Simulate the randomised experiment on the suggestions of the policy evaluation. Needs the planted truth."""

    def work(folder: Path) -> Metrics:
        import pyarrow.parquet as pq

        from rlpf_pipeline.market.experiment import simulate_experiment

        suggestions = pq.read_table(folder_of("policy_evaluation", settings) / "suggestions.parquet")
        result = simulate_experiment(settings.experiment, settings.market, suggestions)
        pq.write_table(result.advertisers, folder / "advertisers.parquet")
        truth = result.truth._asdict()
        (folder / "planted_truth.json").write_text(json.dumps(truth, indent=2))
        return {"advertisers": result.advertisers.num_rows, **{f"planted_{name}": v for name, v in truth.items()}}

    return build("ab_experiment", settings, work)


def ab_report(settings: Settings) -> Outcome:
    """Raises UserError where there can be no simulated experiment to report on."""
    if not settings.has_planted_truth:
        raise UserError(f"{NO_EXPERIMENT} `rlpf ab-report --data FILE` reports on an experiment of your own.")

    def work(folder: Path) -> Metrics:
        experiment = folder_of("ab_experiment", settings)
        require_as_written(experiment)
        return report_on(
            experiment / "advertisers.parquet",
            folder,
            title=f"AdLlama against imitation v2 (simulated market, profile {settings.profile})",
            data_digest=manifest_of("ab_experiment", settings).digest,
            command=f"rlpf run --profile {settings.profile}",
            notes=("The market is simulated: its click model is planted, so the true effect is known.",),
            planted=json.loads((experiment / "planted_truth.json").read_text()),
        )

    return build("ab_report", settings, work)


def report_on(
    data: Path,
    folder: Path,
    *,
    title: str,
    data_digest: str,
    command: str,
    spec: Path | None = None,
    query: str | None = None,
    notes: tuple[str, ...] = (),
    planted: dict[str, float] | None = None,
) -> Metrics:
    """Analyse a table (a file of contracts.EXPERIMENT_ADVERTISERS, or what the spec describes), write the report,
    return its headline."""
    from rlpf_pipeline.abtest.analysis import analyse
    from rlpf_pipeline.abtest.spec import read_spec
    from rlpf_pipeline.report.write import write_report

    analysis = analyse(data, read_spec(spec) if spec else None, query)
    write_report(analysis, folder, title=title, data_digest=data_digest, command=command, notes=notes, planted=planted)
    headline, power, certificate = analysis.headline, analysis.power, analysis.validity.certificate
    lights = [check.light for check in analysis.validity.checks]
    return {
        "verdict": analysis.verdict,
        "relative_risk": headline.estimate,
        "low": headline.low,
        "high": headline.high,
        "p_value": headline.p_value,
        "standard_error": headline.standard_error,
        "model": analysis.model.status,
        "advertisers": analysis.model.advertisers,
        "checks_failed": lights.count("fail"),
        "checks_cautioned": lights.count("warn"),
        "aa_false_positive_rate": certificate.false_positive_rate if certificate else None,
        "minimum_detectable_effect": power.minimum_detectable_effect,
        "power_at_study_effect": power.power_at_study_effect,
    }
