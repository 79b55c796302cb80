"""What a job is given: `run.json`, written by whoever starts it, read with `--config`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rlpf_pipeline.artifacts import Recipe, read_manifest, subset
from rlpf_pipeline.digests import file_digest, model_digest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import Algorithm, PolicySettings, Settings, faults_of

EXPECTS_GPU, EXPECTS_RANKS = "RLPF_EXPECTS_GPU", "RLPF_EXPECTS_RANKS"
"""Variables of a job: it is not to run on a CPU; so many processes are to share it."""
CRASH, MISTAKE = "error-rank{rank}.txt", "mistake-rank{rank}.txt"
"""Files that a failed job leaves beside its run.json: a traceback, or what the user can mend."""
KILLED = 128
"""A job that a signal killed has this and the signal's number as exit code, as in shells."""


def as_in_shells(code: int) -> int:
    """Of a process that a signal killed Python says the negative number of that."""
    return code if code >= 0 else KILLED - code


class RunConfig(BaseModel):
    """Settings, the recipe of the output, where inputs lie and where the output goes."""

    model_config = ConfigDict(extra="forbid")

    settings: Settings
    recipe: Recipe
    inputs: dict[str, Path]
    output: Path
    options: dict[str, str] = {}

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Raises UserError where the file is missing, does not fit, or is another home's."""
        try:
            config = cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = faults_of(error) if isinstance(error, ValidationError) else error.strerror
            raise UserError(
                f"{path} is no run configuration: {reason}. `rlpf run` writes one for each job, at "
                "RLPF_HOME/profile/runs/job/run.json."
            ) from error
        config.require_own_home(path)
        return config

    def require_own_home(self, path: Path) -> None:
        """Raises UserError where the file lies among the runs of a home that was copied or moved, and its output in
        the former one: its job would read and replace what is there."""
        former = self.settings.home
        home = next((runs.parent for runs in path.resolve().parents if runs.name == "runs"), former)
        if home != former.resolve() and (home / "snapshots").is_dir() and self.output.is_relative_to(former):
            raise UserError(
                f"{path} was written in {former}, and lies in a copy, {home}: its job would read and replace what is "
                f"in the former. Write {home} for {former} in it, or name the run.json there."
            )

    def as_it_stands(self) -> RunConfig:
        """With the recipe of what will be done: settings may have been edited in the file, inputs made anew since."""
        settings = subset(self.settings, *(name for name in self.recipe.settings if name in Settings.model_fields))
        read = {name: read_manifest(folder) for name, folder in self.inputs.items() if name in self.recipe.inputs}
        digests = {name: manifest.digest for name, manifest in read.items() if manifest}
        digests |= named_in_settings(self.recipe.stage, settings, self.settings)
        update = {"settings": {**self.recipe.settings, **settings}, "inputs": self.recipe.inputs | digests}
        return self.model_copy(update={"recipe": self.recipe.model_copy(update=update)})

    def by(self, algorithm: Algorithm) -> RunConfig:
        """The same policy run by another algorithm: its output lies beside this one's, under its name and `-algorithm`.

        By the algorithm that this run has anyway, it is this run. Raises UserError where its settings do not fit it.
        """
        if algorithm == self.settings.policy.algorithm:
            return self
        try:
            policy = PolicySettings.model_validate(self.settings.policy.model_dump() | {"algorithm": algorithm})
        except ValidationError as error:
            raise UserError(f"Settings of {self.recipe.stage} do not fit {algorithm}: {faults_of(error)}.") from error
        stage = f"{self.recipe.stage}-{algorithm}"
        settings = {**self.recipe.settings, "policy": policy.model_dump(mode="json")}
        return self.model_copy(
            update={
                "settings": self.settings.model_copy(update={"policy": policy}),
                "recipe": self.recipe.model_copy(update={"stage": stage, "settings": settings}),
                "output": self.output.with_name(f"{self.output.name}-{algorithm}"),
            }
        )


def named_in_settings(stage: str, sections: Collection[str], settings: Settings) -> dict[str, str]:
    """Digests of what is read besides the stage's inputs, as the settings name it: folders of base models, a file of
    examples. Raises UserError where that file is gone."""
    bases = {"base": settings.base.name} if "base" in sections else {}
    if stage == "curated_examples" and settings.teacher.model:
        bases["teacher"] = settings.teacher.model
    digests = {role: digest for role, base in bases.items() if (digest := model_digest(base))}
    if stage == "curated_examples" and settings.teacher.examples_file:
        if not settings.teacher.examples_file.is_file():
            raise UserError(f"teacher.examples_file names no file: {settings.teacher.examples_file}.")
        digests["examples_file"] = file_digest(settings.teacher.examples_file)
    return digests
