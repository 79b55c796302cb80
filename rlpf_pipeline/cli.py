"""`rlpf`: one thin command per capability. Everything heavy is imported inside the commands.

Exit codes: 0 done, 2 the user's input is at fault (a paragraph on stderr), 1 a failure of ours or of the machine.
"""

from __future__ import annotations

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from rlpf_pipeline.errors import JobFailed, UserError
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Algorithm, MarketSettings, faults_of

app = typer.Typer(
    help="Reinforcement Learning with Performance Feedback: ad clicks in, a better copywriter and its A/B proof out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
"""What the system says of a path that the user gave."""


class Format(StrEnum):
    """A format of observed ads; its profile is where `ingest` puts them when no other is named."""

    UPWORTHY = "upworthy"
    META_ADS = "meta-ads"
    GOOGLE_ADS = "google-ads"
    GENERIC = "generic"

    @property
    def profile(self) -> str:
        return "upworthy" if self is Format.UPWORTHY else "production"


class MetaClicks(StrEnum):
    LINK = "link"
    ALL = "all"


class Trainable(StrEnum):
    IMITATION = "imitation"
    REWARD = "reward"
    POLICY = "policy"


Profile = Annotated[
    str | None, typer.Option(help="tiny, demo, upworthy or production.  [default: RLPF_PROFILE, or demo]")
]


@app.command()
def run(
    profile: Profile = None,
    data: Annotated[list[Path] | None, typer.Option(help="File to ingest; repeat for several.")] = None,
) -> None:
    """Materialise every asset, from raw ads to the A/B report. What is up to date is kept.

    Example: rlpf run --profile upworthy --data packages.csv
    """
    from rich.console import Console

    settings = load_settings(profile, tuple(path.resolve() for path in data) if data else None)
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
    print(f"Web UI: make ui PROFILE={settings.profile}")


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
        MetaClicks | None, typer.Option(help="meta-ads: clicks on the link, or all clicks.  [default: link]")
    ] = None,
    keep_broken_randomisation: Annotated[
        bool, typer.Option("--keep-broken-randomisation", help="upworthy: keep the weeks without random assignment.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Forget the files ingested before.")] = False,
    profile: Profile = None,
) -> None:
    """Read observed ads into the raw table; refused rows are kept beside it, each with its reason.

    Files ingested before stay, and a file with known content changes nothing.

    Example: rlpf ingest packages.csv --format upworthy

    Example: rlpf ingest 'exports/*.csv.gz' --format generic --columns map.yaml
    """
    from rlpf_pipeline.defs.steps import raw_multitext_ads
    from rlpf_pipeline.sources.files import matching
    from rlpf_pipeline.sources.generic import read_column_map

    if columns and format is not Format.GENERIC:
        raise UserError(f"--columns is for --format generic; the columns of {format.value} are known.")
    given = {
        "columns": read_column_map(columns) if columns else None,
        "meta_clicks": meta_clicks and meta_clicks.value,
        "keep_broken_randomisation": keep_broken_randomisation or None,
    }
    settings = load_settings(profile or format.profile, matching(files))
    options = settings.ingest.model_copy(update={name: value for name, value in given.items() if value is not None})
    settings = settings.model_copy(update={"source": format.value, "ingest": options, "keep_ingested": not replace})
    outcome = raw_multitext_ads(settings)
    counts = outcome.manifest.metrics
    print(f"{counts['read']} rows read, {counts['accepted']} accepted, {counts['rejected']} rejected")
    print(f"Raw table and rejects: {outcome.folder}{' (unchanged)' if outcome.reused else ''}")


@app.command()
def pairs(profile: Profile = None) -> None:
    """Build preference pairs from the raw table, and the snapshot that training reads.

    Example: rlpf pairs --profile upworthy
    """
    from rlpf_pipeline.defs import steps

    settings = load_settings(profile)
    for stage in (steps.variant_performance, steps.preference_pairs, steps.preference_snapshot):
        outcome = stage(settings)
        figures = ", ".join(f"{name} {value}" for name, value in outcome.manifest.metrics.items())
        print(f"{outcome.stage.name}: {'unchanged' if outcome.reused else 'built'} ({figures})")
    print(f"Snapshot: {outcome.folder}")


@app.command()
def train(
    job: Annotated[Trainable, typer.Argument(help="What to train.")],
    config: Annotated[Path, typer.Option(help="run.json: settings, inputs, output (training/run_config.py).")],
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="policy: another than run.json's; the output is a folder of its own.")
    ] = None,
) -> None:
    """Train one model without Dagster, as `accelerate launch` would.

    Example: rlpf train reward --config .rlpf/demo/runs/reward_model/run.json

    Example: rlpf train policy --config .rlpf/demo/runs/adllama/run.json --algorithm rloo
    """
    from rlpf_pipeline.artifacts import write_atomically
    from rlpf_pipeline.defs.launcher import launch
    from rlpf_pipeline.defs.stages import STAGES
    from rlpf_pipeline.training.run_config import RunConfig

    if algorithm and job is not Trainable.POLICY:
        raise UserError(f"--algorithm is for `rlpf train policy`, not for {job.value}. Leave it out.")
    asked = RunConfig.read(config)
    module, stage = f"rlpf_pipeline.training.jobs.{job.value}", asked.recipe.stage.partition("-")[0]
    fitting = [name for name, own in STAGES.items() if own.job == module]
    if stage not in fitting:
        raise UserError(
            f"{config} is of {asked.recipe.stage}, which `rlpf train {job.value}` does not make. Name the run.json of "
            f"{' or '.join(fitting)}."
        )
    chosen = asked.by(algorithm) if algorithm else asked
    if chosen is not asked:
        config = config.parent / chosen.recipe.stage / config.name
        write_atomically(config, chosen.model_dump_json(indent=2))
    launch(module, config.resolve(), {})
    print(f"Model: {chosen.output}")


@app.command()
def score(
    reward_model: Annotated[Path, typer.Option(help="Folder of a trained reward model.")],
    input: Annotated[Path, typer.Option(help="CSV, TSV, JSON Lines (each also .gz or .zst) or Parquet file.")],
    text_column: Annotated[str, typer.Option(help="Column of the texts to score.")],
    output: Annotated[Path, typer.Option(help="Parquet file to write; a former one is replaced.")],
    context_column: Annotated[
        list[str] | None, typer.Option(help="Column of the text's context; repeat for several, joined by a space.")
    ] = None,
    group_column: Annotated[
        list[str] | None, typer.Option(help="Column that says which rows compete; repeat for several.")
    ] = None,
) -> None:
    """Score every row of a file: reward_mean, reward_spread, and with groups rank and (unless pointwise) p_best.

    The output has the input's rows and columns, in order, and the scores.

    Example: rlpf score --reward-model .rlpf/demo/models/reward_model --input ads.csv --text-column headline
    --context-column industry --group-column ad_id --output scored.parquet
    """
    from rlpf_pipeline.evaluation.score_file import ScoreColumns, score_file
    from rlpf_pipeline.models.reward_folders import load_reward_model
    from rlpf_pipeline.training.job import accelerator, quiet_libraries
    from rlpf_pipeline.training.reporter import Reporter

    quiet_libraries()
    model = load_reward_model(reward_model, load_settings().cache).to(accelerator().device)
    columns = ScoreColumns(text_column, tuple(context_column or ()), tuple(group_column or ()))
    reporter = Reporter("score")
    scored = score_file(
        model, input, columns, output, lambda done, total: reporter.progress(done, total, "distinct texts")
    )
    print(f"{scored.rows:,} rows scored, {scored.texts:,} distinct texts: {output}")


@app.command()
def generate(
    policy: Annotated[Path, typer.Option(help="Folder of a trained policy or imitation model.")],
    text: Annotated[str | None, typer.Option(help="The ad's text.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=64, help="Suggestions for a text.")] = 4,
    context: Annotated[
        str | None, typer.Option(help="What the ad's readers know: reward models read it first.")
    ] = None,
    reward_model: Annotated[Path | None, typer.Option(help="Folder of a reward model to rank by.")] = None,
    input: Annotated[Path | None, typer.Option(help="File of texts: CSV, TSV, JSON Lines or Parquet.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Its column of texts.")] = None,
    context_column: Annotated[
        list[str] | None, typer.Option(help="Its column of contexts; repeat for several, joined by a space.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Parquet file to write: a row a suggestion.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Equal seeds give equal suggestions.")] = 0,
) -> None:
    """Write other texts for an ad, or for every row of a file: distinct, the best first where a reward model is given,
    by its reward (log odds to beat the original) less the spread of its heads.

    Example: rlpf generate --policy .rlpf/demo/models/adllama --text "Fresh bread every morning." -n 4
    --reward-model .rlpf/demo/models/reward_model --context "Industry: bakery"

    Example: rlpf generate --policy .rlpf/demo/models/adllama --input ads.csv --text-column headline
    --output suggestions.parquet
    """
    if (text is None) == (input is None) or (text is not None and (text_column or context_column or output)):
        raise UserError("Give either --text (and its --context), or --input with --text-column and --output.")
    if input and context is not None:
        raise UserError("With --input, name the columns of the context by --context-column.")
    if input and not (text_column and output):
        raise UserError("--input needs --text-column (which column holds the texts) and --output (a .parquet file).")

    from rlpf_pipeline.evaluation.generate_file import generate_file
    from rlpf_pipeline.models.reward_folders import load_reward_model
    from rlpf_pipeline.training.job import accelerator, quiet_libraries
    from rlpf_pipeline.training.reporter import Reporter
    from rlpf_pipeline.training.suggest import load_writer, suggest

    quiet_libraries()
    cache, device = load_settings().cache, accelerator().device
    writer = load_writer(policy, cache, device)
    judge = load_reward_model(reward_model, cache).to(device) if reward_model else None
    if input and text_column and output:
        reporter = Reporter("generate")
        rows, short = generate_file(
            writer,
            input,
            text_column,
            n,
            seed,
            output,
            judge,
            context_column or (),
            lambda done, total: reporter.progress(done, total, "texts"),
        )
        print(f"{rows:,} rows, {short:,} of them with fewer than {n} distinct suggestions: {output}")
    elif text is not None:
        (suggestions,) = suggest(writer, [(context, text)], n, seed, judge)
        for own in suggestions:
            print(own.text if own.reward is None else f"{own.reward:+.3f} ± {own.spread:.3f}  {own.text}")
        if len(suggestions) < n:
            print(f"Only {len(suggestions)} distinct finished texts were found.", file=sys.stderr)


@app.command("ab-report")
def ab_report(
    data: Annotated[
        Path,
        typer.Option(help="CSV, Parquet (or a pattern such as 'days/*.parquet') or DuckDB file."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the report; files of the same names are replaced.")],
    spec: Annotated[Path | None, typer.Option(help="YAML: columns, arms, covariates, segments, date.")] = None,
    query: Annotated[str | None, typer.Option(help="DuckDB file: the table, or a SELECT.")] = None,
) -> None:
    """Analyse an experiment and write report.html, report.md, results.json and effects.csv.

    Example: rlpf ab-report --data advertisers.parquet --output report

    Example: rlpf ab-report --data warehouse.duckdb --query results --spec spec.yaml --output report
    """
    import shlex

    from rlpf_pipeline.defs.steps import report_on

    options = {"--data": data, "--output": output, "--spec": spec, "--query": query}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    headline = report_on(
        data,
        output,
        title=f"A/B report: {data.name}",
        data_digest=digest_of_files(data),
        command=shlex.join(["rlpf", "ab-report", *words]),
        spec=spec,
        query=query,
    )
    print(
        f"Relative risk {headline['relative_risk']:.4f} ({headline['low']:.4f} to {headline['high']:.4f}): "
        f"{headline['verdict']}"
    )
    print(f"Report: {output / 'report.html'}")


@app.command("ab-power")
def ab_power(
    effect: Annotated[float, typer.Option(help="Relative change of CTR to find; 0.05 is +5 %.")] = 0.05,
    data: Annotated[
        Path | None, typer.Option(help="Advertisers before the experiment: impressions and clicks (CSV, Parquet).")
    ] = None,
    standard_error: Annotated[float | None, typer.Option(help="Without data: of the log relative risk …")] = None,
    advertisers: Annotated[int | None, typer.Option(help="… of an experiment with so many advertisers.")] = None,
    power: Annotated[float, typer.Option(help="Probability to find the effect.")] = 0.8,
    level: Annotated[float, typer.Option(help="Of the interval.")] = 0.95,
    treatment_share: Annotated[float, typer.Option(help="Share of advertisers in treatment (with data).")] = 0.5,
    output: Annotated[Path | None, typer.Option(help="JSON file of the power curve.")] = None,
) -> None:
    """Plan an experiment: advertisers needed, and a power curve, from pre-period data or a known standard error.

    Example: rlpf ab-power --effect 0.05 --data last_quarter.parquet

    Example: rlpf ab-power --effect 0.067 --standard-error 0.0299 --advertisers 34849
    """
    import json

    from rich.console import Console

    from rlpf_pipeline.abtest.power import plan
    from rlpf_pipeline.abtest.pre_period import planned_from
    from rlpf_pipeline.artifacts import write_atomically
    from rlpf_pipeline.report.power_table import power_table
    from rlpf_pipeline.report.write import plain

    if data is not None:
        standard_error, advertisers = planned_from(data, treatment_share)
    if standard_error is None or advertisers is None:
        raise UserError("Either --data, or --standard-error and --advertisers of an experiment to go by, are needed.")
    planned = plan(effect, standard_error, advertisers, power, level, treatment_share)
    Console().print(power_table(planned))
    print(
        f"{planned.needed_advertisers:,} advertisers find {100 * effect:+.1f} % with {100 * power:.0f} % probability."
    )
    if output:
        write_atomically(output, json.dumps(plain(planned), indent=2, sort_keys=True) + "\n")


@app.command()
def simulate(
    advertisers: Annotated[int, typer.Option(min=1, help="Advertisers of the market; about six texts each.")],
    output: Annotated[Path, typer.Option(help="Folder to write to; a multitext_ads.parquet there is replaced.")],
    days: Annotated[int, typer.Option(min=1, max=366, help="Days an ad runs; a text has a row a day.")] = 1,
    novelty: Annotated[float, typer.Option(help="Log CTR that a text has more on its first day.")] = 0.0,
    early_winner: Annotated[float, typer.Option(min=0, help="How much later days show what was clicked.")] = 0.0,
    divergent_share: Annotated[float, typer.Option(min=0, max=1, help="Ads with an audience for each text.")] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the market.  [default: the profile's]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Simulate an ad market's history: multitext ads with impressions and clicks, as Parquet, at any size.

    Example: rlpf simulate --advertisers 500 --output market

    Example: rlpf simulate --advertisers 2000 --days 14 --early-winner 2 --output market
    """
    from rich.progress import Progress

    from rlpf_pipeline.market.history import write_history

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
    output.mkdir(parents=True, exist_ok=True)
    path = output / "multitext_ads.parquet"
    with Progress(transient=True) as bar:
        task = bar.add_task("advertisers", total=advertisers)
        rows = write_history(market, path, workers, lambda done, _: bar.update(task, completed=done))
    print(f"{rows} rows of {advertisers} advertisers: {path}")


def digest_of_files(path: Path) -> str:
    """Of a file, or of those that a pattern finds. Raises UserError where there is none."""
    from rlpf_pipeline.artifacts import digest_of, file_digest

    files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"No such file: {path}.")
    return file_digest(path) if files == [path] else digest_of({file.name: file_digest(file) for file in files})


def main() -> None:
    """Entry point: a UserError becomes a message and exit code 2; a failed job its message and exit code 1."""
    try:
        app()
    except UserError as error:
        print(f"rlpf: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in NOT_OURS or not error.filename:
            raise
        print(f"rlpf: {error.filename}: {error.strerror}.", file=sys.stderr)
        sys.exit(2)
    except JobFailed as error:
        print(f"rlpf: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
