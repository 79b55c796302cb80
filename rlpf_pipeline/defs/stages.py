"""The stages in one table: where each writes, what it reads, which settings and code determine it.

Assets, checks and the command line all look here, so they agree on paths, and on whether a stage is up to date: its
manifest holds the recipe that this table gives. Nothing here imports Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rlpf_pipeline.artifacts import Manifest, Recipe, read_manifest, subset
from rlpf_pipeline.digests import digest_of, file_digest, source_digest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import IngestSettings, Settings
from rlpf_pipeline.training.run_config import named_in_settings


class Stage(NamedTuple):
    """One stage, and the one asset it makes.

    folder: of its output, below settings.home (of a DuckDB table: of the marker that says how the table was built);
    inputs: stages it reads; sections: settings it depends on; code: what `digests.source_digest` takes;
    job: module that `accelerate launch -m` starts; options: of the job.
    """

    name: str
    group: str
    folder: str
    inputs: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    job: str = ""
    options: Mapping[str, str] = {}


def training_job(
    name: str,
    group: str,
    folder: str,
    inputs: tuple[str, ...],
    sections: tuple[str, ...],
    job: str,
    options: Mapping[str, str] | None = None,
    data_files: tuple[str, ...] = (),
) -> Stage:
    code = (f"{job.replace('.', '/')}.py", *data_files)
    return Stage(
        name, group, folder, inputs, ("seed", "base", *sections), code, f"rlpf_pipeline.{job}", dict(options or {})
    )


WAREHOUSE_CODE = ("preferences/stages.py", "sql/macros.sql", "sql/staging", "sql/marts")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "raw_multitext_ads",
            "data",
            "raw",
            code=("sources/ingest.py", "market/history.py", "sql/macros.sql", "sql/staging"),
        ),
        Stage(
            "variant_performance",
            "data",
            "warehouse/variant_performance",
            inputs=("raw_multitext_ads",),
            sections=("seed", "pairs"),
            code=WAREHOUSE_CODE,
        ),
        Stage(
            "preference_pairs",
            "data",
            "warehouse/preference_pairs",
            inputs=("variant_performance",),
            sections=("pairs",),
            code=WAREHOUSE_CODE,
        ),
        Stage(
            "preference_snapshot",
            "data",
            "snapshots/preferences",
            inputs=("preference_pairs",),
            code=WAREHOUSE_CODE,
        ),
        training_job(
            "curated_examples",
            "imitation",
            "snapshots/curated",
            inputs=("preference_snapshot",),
            sections=("teacher",),
            job="training.jobs.teacher",
            data_files=("training/seed_examples.jsonl",),
        ),
        training_job(
            "imitation_v1",
            "imitation",
            "models/imitation_v1",
            inputs=("curated_examples",),
            sections=("imitation",),
            job="training.jobs.imitation",
            options={"version": "v1"},
        ),
        training_job(
            "imitation_v2",
            "imitation",
            "models/imitation_v2",
            inputs=("curated_examples",),
            sections=("imitation",),
            job="training.jobs.imitation",
            options={"version": "v2"},
        ),
        training_job(
            "reward_model",
            "reward",
            "models/reward_model",
            inputs=("preference_snapshot",),
            sections=("reward",),
            job="training.jobs.reward",
            options={"split": "train"},
        ),
        training_job(
            "evaluation_reward_model",
            "reward",
            "models/evaluation_reward_model",
            inputs=("preference_snapshot",),
            sections=("reward",),
            job="training.jobs.reward",
            options={"split": "evaluation"},
        ),
        training_job(
            "pointwise_reward_model",
            "reward",
            "models/pointwise_reward_model",
            inputs=("preference_snapshot",),
            sections=("reward",),
            job="training.jobs.reward",
            options={"split": "train", "objective": "pointwise"},
        ),
        training_job(
            "adllama",
            "policy",
            "models/adllama",
            inputs=("imitation_v2", "reward_model", "evaluation_reward_model", "preference_snapshot"),
            sections=("policy",),
            job="training.jobs.policy",
        ),
        training_job(
            "imitation_evaluation",
            "evaluation",
            "evaluation/imitation",
            inputs=("curated_examples", "imitation_v1", "imitation_v2"),
            sections=("teacher", "evaluation"),
            job="evaluation.jobs.imitation",
        ),
        training_job(
            "reward_model_evaluation",
            "evaluation",
            "evaluation/reward_model",
            inputs=("reward_model", "evaluation_reward_model", "pointwise_reward_model", "preference_snapshot"),
            sections=(),
            job="evaluation.jobs.reward_model",
        ),
        training_job(
            "policy_evaluation",
            "evaluation",
            "evaluation/policy",
            inputs=("imitation_v2", "adllama", "reward_model", "evaluation_reward_model", "preference_snapshot"),
            sections=("source", "market", "policy", "evaluation"),
            job="evaluation.jobs.policy",
        ),
        Stage(
            "ab_experiment",
            "experiment",
            "experiment",
            inputs=("policy_evaluation",),
            sections=("market", "experiment"),
            code=("market/experiment.py",),
        ),
        Stage(
            "ab_report",
            "experiment",
            "reports/ab",
            inputs=("ab_experiment",),
            sections=("profile",),
            code=("abtest/analysis.py", "report/write.py", "report/templates", "sql/abtest"),
        ),
    )
}


def folder_of(name: str, settings: Settings) -> Path:
    return settings.home / STAGES[name].folder


def inputs_of(name: str, settings: Settings) -> dict[str, Path]:
    """Folders of what a stage reads, by stage."""
    return {needed: folder_of(needed, settings) for needed in STAGES[name].inputs}


def manifest_of(name: str, settings: Settings) -> Manifest:
    """Manifest of a stage that was built. Raises UserError where it was not."""
    manifest = read_manifest(folder_of(name, settings))
    if manifest is None:
        raise UserError(
            f"There is no {name} of profile '{settings.profile}' in {folder_of(name, settings)}. "
            f"Materialise it first: `rlpf run --profile {settings.profile}` builds everything."
        )
    return manifest


def require_made_from_what_is_there(name: str, settings: Settings) -> None:
    """Raises UserError where an input of the stage was made anew since: another ingest or run changed it meanwhile.

    Tables hold the numbers of variants, which each variant_performance gives anew."""
    made_from = manifest_of(name, settings).recipe.inputs
    for needed in STAGES[name].inputs:
        if made_from.get(needed) != manifest_of(needed, settings).digest:
            raise UserError(
                f"{name} was made from another {needed} than is there now. Materialise it first: "
                f"`rlpf run --profile {settings.profile}` or `rlpf pairs --profile {settings.profile}` does."
            )


def recipe_of(name: str, settings: Settings) -> Recipe:
    """What determines the stage: its settings, the digests of its inputs, its code. Inputs must be built."""
    stage = STAGES[name]
    inputs = {needed: manifest_of(needed, settings).digest for needed in stage.inputs}
    sections, order = stage.sections, {}
    if name == "raw_multitext_ads":
        inputs = files_to_ingest(settings)
        sections = ("source", "ingest") if inputs else ("source", "market")
        if inputs:  # of counts that several files have, the last one's are taken
            order = {"files_in_order": digest_of(list(inputs))}
    inputs |= named_in_settings(name, sections, settings)
    own = {**subset(settings, *sections), **order}
    return Recipe(stage=name, settings=own, inputs=inputs, code=source_digest(*stage.code))


def files_to_ingest(settings: Settings) -> dict[str, str]:
    """Path and digest of every file that the raw table is made of: those ingested before, and the new ones of `data`.

    Content that is known, under whatever name, is not new; a known path with other content takes its place. Where all
    are read again for a new one, content that is gone from its path is read where it is named. Raises UserError where
    the files before were of another format, or read with other options.
    """
    manifest = read_manifest(folder_of("raw_multitext_ads", settings)) if settings.keep_ingested else None
    before = dict(manifest.recipe.inputs) if manifest else {}
    if manifest and before:
        require_alike(manifest.recipe, settings)
    named = {str(path): file_digest(path) for path in settings.data}
    changed = {path for path, digest in before.items() if named.get(path, digest) != digest}
    if not changed and set(named.values()) <= set(before.values()):
        return before
    elsewhere = {digest: path for path, digest in named.items()}
    known: dict[str, str] = {}
    for path, digest in before.items():
        if digest in elsewhere and (path in changed or not is_still(path, digest)):
            known[elsewhere[digest]] = digest
        elif path not in changed:
            known[path] = digest
    for path, digest in named.items():
        if digest not in known.values():
            known[path] = digest
    return known


def files_replaced(before: Manifest, now: Manifest) -> list[str]:
    """Files of the raw table before whose content is in it no more, as their paths hold another."""
    kept = set(now.recipe.inputs.values())
    return [path for path, digest in before.recipe.inputs.items() if digest not in kept]


def is_still(path: str, digest: str) -> bool:
    """Whether that content is at its path."""
    return Path(path).is_file() and file_digest(Path(path)) == digest


def require_alike(before: Recipe, settings: Settings) -> None:
    """Raises UserError where the files ingested before were read in another way than those of `settings` are to be."""
    if before.settings.get("source") != settings.source:
        raise UserError(
            f"The raw table of profile '{settings.profile}' holds files of format {before.settings.get('source')}. "
            "Choose another --profile, or drop them by `rlpf ingest --replace`."
        )
    options = IngestSettings.model_validate(before.settings["ingest"]).model_dump()
    changed = {name: (options[name], own) for name, own in settings.ingest.model_dump().items() if options[name] != own}
    if changed:
        listed = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in changed.items())
        raise UserError(
            f"The files ingested before were read with other options: {listed}. All are read alike: repeat the options "
            "of before, or start anew by `rlpf ingest --replace` with all files."
        )
