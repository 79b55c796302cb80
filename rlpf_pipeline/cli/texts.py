"""Commands for whoever writes ads: scores of texts, and other texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.profiles import load_settings

app = typer.Typer()


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
    settings, device = load_settings(), accelerator().device
    cache = settings.cache
    writer = load_writer(policy, cache, device, settings.policy)
    judge = load_reward_model(reward_model, cache).to(device) if reward_model else None
    if judge and not judge.log_odds:
        print(
            f"{reward_model} was trained on log CTRs: rewards are differences of these, no log odds.", file=sys.stderr
        )
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
