"""Commands of the pipeline: everything at once, or data in, pairs, one model; and a market to try it on."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import ValidationError

from rlpf_pipeline.artifacts import read_manifest, whole
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.package import IS_INSTALLED
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Algorithm, Format, MarketSettings, MetaClicks, Settings, faults_of

if TYPE_CHECKING:
    from rlpf_pipeline.defs.stages import Stage
    from rlpf_pipeline.training.run_config import RunConfig

app = typer.Typer()

PROFILES = "tiny, demo, upworthy or production."
Profile = Annotated[str | None, typer.Option(help=PROFILES, show_default="RLPF_PROFILE, or demo")]


@app.command()
def run(
    profile: Profile = None,
    data: Annotated[
        list[str] | None, typer.Option(help="File to ingest, or a pattern in quotes; repeat for several.")
    ] = None,
) -> None:
    """Materialise every asset, from raw ads to the A/B report. What is up to date is kept.

    Example: rlpf run --profile upworthy --data packages.csv
    """
    from rich.console import Console

    from rlpf_pipeline.sources.files import matching

    settings = load_settings(profile, matching(data) if data else None)
    print(f"Profile {settings.profile}; everything is written to {settings.home}", flush=True)

    from rlpf_pipeline.defs.run import run_everything
    from rlpf_pipeline.defs.stages import folder_of
    from rlpf_pipeline.defs.summary import summary, verdicts

    if not run_everything(settings, lambda line: print(line, flush=True)):
        raise typer.Exit(1)
    Console().print(summary(settings))
    for verdict in verdicts(settings):
        print(verdict)
    if settings.has_planted_truth:
        print(f"Report: {folder_of('ab_report', settings) / 'report.html'}")
    print(f"Web UI: {web_ui_command(settings)}")


def web_ui_command(settings: Settings) -> str:
    """`make ui`, or what it does where there is no Makefile: of a package from a wheel."""
    if not IS_INSTALLED:
        return f"make ui PROFILE={settings.profile}"
    home = settings.instance
    variables = {"RLPF_HOME": home, "DAGSTER_HOME": home / "dagster", "RLPF_PROFILE": settings.profile}
    set_to = " ".join(f"{name}={quote(str(value))}" for name, value in variables.items())
    return f"{set_to} dagster dev -m rlpf_pipeline.definitions"


@app.command()
def ingest(
    files: Annotated[
        list[str], typer.Argument(help="CSV, TSV, JSON or Parquet files, or patterns such as 'ads/*.csv'.")
    ],
    format: Annotated[Format, typer.Option(help="Whose columns the files have.")],
    columns: Annotated[
        Path | None, typer.Option(help="generic: YAML file of lines `field: column of the file`.")
    ] = None,
    meta_clicks: Annotated[
        MetaClicks | None, typer.Option(help="meta-ads: clicks on the link, or all clicks.", show_default="link")
    ] = None,
    keep_broken_randomisation: Annotated[
        bool, typer.Option("--keep-broken-randomisation", help="upworthy: keep the weeks without random assignment.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Forget the files ingested before.")] = False,
    profile: Annotated[
        str | None, typer.Option(help=PROFILES, show_default="production; upworthy for its format")
    ] = None,
) -> None:
    """Read observed ads into the raw table; refused rows are kept beside it, each with its reason.

    Files ingested before stay, and a file with known content changes nothing.

    Example: rlpf ingest packages.csv --format upworthy

    Example: rlpf ingest 'exports/*.csv.gz' --format generic --columns map.yaml
    """
    from rich.console import Console
    from rich.text import Text

    from rlpf_pipeline.defs.stages import files_replaced, folder_of
    from rlpf_pipeline.defs.steps import raw_multitext_ads
    from rlpf_pipeline.sources.files import matching
    from rlpf_pipeline.sources.generic import read_column_map
    from rlpf_pipeline.sources.ingest import kinds_of_rejects

    if columns and format != "generic":
        raise UserError(f"--columns is for --format generic; the columns of {format} are known.")
    given = {
        "columns": read_column_map(columns) if columns else None,
        "meta_clicks": meta_clicks,
        "keep_broken_randomisation": keep_broken_randomisation or None,
    }
    settings = load_settings(profile or ("upworthy" if format == "upworthy" else "production"), matching(files))
    options = settings.ingest.model_copy(update={name: value for name, value in given.items() if value is not None})
    settings = settings.model_copy(update={"source": format, "ingest": options, "keep_ingested": not replace})
    before = read_manifest(folder_of("raw_multitext_ads", settings)) if not replace else None
    with Console(stderr=True).status("looking at the files") as status:  # shown in a terminal alone
        outcome = raw_multitext_ads(settings, lambda doing: status.update(Text(doing)))
    counts = outcome.manifest.metrics
    print(f"{counts['read']} rows read, {counts['accepted']} accepted, {counts['rejected']} rejected")
    for rows, reason in kinds_of_rejects(outcome.folder):
        print(f"  {rows} rejected, such as: {reason}" if rows > 1 else f"  1 rejected: {reason}")
    for path in files_replaced(before, outcome.manifest) if before else ():
        print(f"  {path} has other content than before; its former rows are gone. Ingest a copy of it to keep them.")
    print(f"Raw table and rejects: {outcome.folder}{' (unchanged)' if outcome.reused else ''}")
    print(f"Next: rlpf pairs --profile {settings.profile}")


@app.command()
def pairs(profile: Profile = None) -> None:
    """Build preference pairs from the raw table, and the snapshot that training reads.

    Example: rlpf pairs --profile upworthy
    """
    from rich.console import Console

    from rlpf_pipeline.defs import steps

    settings = load_settings(profile)
    for stage in (steps.variant_performance, steps.preference_pairs, steps.preference_snapshot):
        with Console(stderr=True).status(stage.__name__):
            outcome = stage(settings)
        figures = ", ".join(f"{name} {value}" for name, value in outcome.manifest.metrics.items())
        print(f"{outcome.stage.name}: {'unchanged' if outcome.reused else 'built'} ({figures})")
    print(f"Snapshot: {outcome.folder}")


@app.command()
def train(
    job: Annotated[Literal["imitation", "reward", "policy"], typer.Argument(help="What to train.")],
    config: Annotated[Path, typer.Option(help="run.json: settings, inputs, output (training/run_config.py).")],
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="policy: another than run.json's; the output is a folder of its own.")
    ] = None,
) -> None:
    """Train one model without Dagster, as `accelerate launch` would.

    Example: rlpf train reward --config .rlpf/demo/runs/reward_model/run.json

    Example: rlpf train policy --config .rlpf/demo/runs/adllama/run.json --algorithm rloo
    """
    from rlpf_pipeline.defs.launcher import launch
    from rlpf_pipeline.defs.stages import STAGES
    from rlpf_pipeline.training.run_config import RunConfig
    from rlpf_pipeline.whole_files import write_atomically

    if algorithm and job != "policy":
        raise UserError(f"--algorithm is for `rlpf train policy`, not for {job}. Leave it out.")
    asked = RunConfig.read(config)
    module, stage = f"rlpf_pipeline.training.jobs.{job}", asked.recipe.stage.partition("-")[0]
    fitting = [name for name, own in STAGES.items() if own.job == module]
    if stage not in fitting:
        raise UserError(
            f"{config} is of {asked.recipe.stage}, which `rlpf train {job}` does not make. Name the run.json of "
            f"{' or '.join(fitting)}."
        )
    require_as_of_stage(asked, config, STAGES[stage])
    chosen = asked.by(algorithm) if algorithm else asked
    require_own_output(chosen)
    if chosen is not asked:
        config = config.parent / chosen.recipe.stage / config.name
        write_atomically(config, chosen.model_dump_json(indent=2))
    launch(module, config.resolve(), {})
    print(f"Model: {chosen.output}")


def require_as_of_stage(asked: RunConfig, path: Path, stage: Stage) -> None:
    """Raises UserError where inputs or options were edited so that the output would be none of the stage, under its
    name."""
    if asked.options != stage.options:
        raise UserError(
            f"{path} has options {asked.options}; {stage.name} is made with {dict(stage.options)}. Write these, or "
            "name the run.json of the stage that is meant."
        )
    wrong = [name for name in stage.inputs if name not in asked.inputs or not whole(asked.inputs[name]).is_dir()]
    if wrong:
        raise UserError(
            f"{path} names no folder as its input {', '.join(wrong)}. Make it first (`rlpf run` makes everything), or "
            "name one."
        )


def require_own_output(config: RunConfig) -> None:
    """Raises UserError where the output would take the place of what is none of its stage."""
    output = config.output
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    manifest = read_manifest(output)
    if manifest is None or manifest.recipe.stage != config.recipe.stage:
        there = manifest.recipe.stage if manifest else "what no job wrote"
        raise UserError(
            f"The output {output} holds {there}, which {config.recipe.stage} would replace. Name another output in "
            "run.json, or move it away."
        )


@app.command()
def simulate(
    advertisers: Annotated[int, typer.Option(min=1, help="Advertisers of the market; about six texts each.")],
    output: Annotated[Path, typer.Option(help="Folder to write to; a multitext_ads.parquet there is replaced.")],
    days: Annotated[int, typer.Option(min=1, max=366, help="Days an ad runs; a text has a row a day.")] = 1,
    novelty: Annotated[float, typer.Option(help="Log CTR that a text has more on its first day.")] = 0.0,
    early_winner: Annotated[float, typer.Option(min=0, help="How much later days show what was clicked.")] = 0.0,
    divergent_share: Annotated[float, typer.Option(min=0, max=1, help="Ads with an audience for each text.")] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the market.", show_default="the profile's")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Simulate an ad market's history: multitext ads with impressions and clicks, as Parquet, at any size.

    Example: rlpf simulate --advertisers 500 --output market

    Example: rlpf simulate --advertisers 2000 --days 14 --early-winner 2 --output market
    """
    from rich.progress import Progress

    from rlpf_pipeline.market.history import write_history
    from rlpf_pipeline.whole_files import require_writable

    chosen = {
        "advertisers": advertisers,
        "days": days,
        "novelty": novelty,
        "early_winner": early_winner,
        "divergent_share": divergent_share,
    }
    own = load_settings().market.model_dump() | chosen | ({} if seed is None else {"seed": seed})
    try:
        market = MarketSettings.model_validate(own)
    except ValidationError as error:
        raise UserError(f"The market's options do not fit: {faults_of(error)}.") from error
    path = output / "multitext_ads.parquet"
    require_writable(path)
    with Progress(transient=True) as bar:
        task = bar.add_task("advertisers", total=advertisers)
        rows = write_history(market, path, workers, lambda done, _: bar.update(task, completed=done))
    print(f"{rows} rows of {advertisers} advertisers: {path}")
