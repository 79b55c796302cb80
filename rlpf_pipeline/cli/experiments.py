"""Commands for experiments: plan one, analyse one."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from rlpf_pipeline.errors import UserError

app = typer.Typer()


@app.command("ab-report")
def ab_report(
    data: Annotated[Path, typer.Option(help="CSV, Parquet (or a pattern such as 'days/*.parquet') or DuckDB file.")],
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
    from rlpf_pipeline.whole_files import require_writable

    require_beside_data(output, data)
    require_writable(output / "report.html")
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
    treatment_share: Annotated[
        float | None, typer.Option(help="With data: share of advertisers in treatment.", show_default="0.5")
    ] = None,
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
    from rlpf_pipeline.report.plain import plain
    from rlpf_pipeline.report.power_table import power_table
    from rlpf_pipeline.whole_files import is_same, require_writable, write_atomically

    if data and output and is_same(data, output):
        raise UserError(f"The output {output} is the data. Choose another name.")
    if output:
        require_writable(output)
    past = None
    if data is not None and standard_error is None and advertisers is None:
        treatment_share = 0.5 if treatment_share is None else treatment_share
        past = planned_from(data, treatment_share)
        standard_error, advertisers = past.standard_error, past.advertisers
    elif data is not None or standard_error is None or advertisers is None:
        raise UserError("Either --data, or --standard-error and --advertisers of an experiment to go by, are needed.")
    elif treatment_share is not None:
        raise UserError("--treatment-share is for a plan from --data: a standard error is of the shares that gave it.")
    planned = plan(effect, standard_error, advertisers, power, level, treatment_share, past)
    Console().print(power_table(planned))
    print(
        f"{planned.needed_advertisers:,} advertisers find {100 * effect:+.6g} % with {100 * power:.6g} % probability."
    )
    if past and planned.cautious_advertisers:
        print(
            f"It may take {planned.cautious_advertisers:,}: the past's {past.advertisers:,} advertisers count as "
            f"{past.effective_advertisers:,.0f} by impressions, and hold few of the large ones that make the error. "
            "Covariates find more than the plan says."
        )
    if output:
        write_atomically(output, json.dumps(plain(planned), indent=2, sort_keys=True) + "\n")


def require_beside_data(output: Path, data: Path) -> None:
    """Raises UserError where a file of the report would replace the data, or be among them the next time."""
    from rlpf_pipeline.report.write import FILES
    from rlpf_pipeline.whole_files import is_same

    for name in FILES:
        if is_same(output / name, data):
            raise UserError(f"The report's {name} would replace the data {data}. Choose another --output.")
        if "*" in data.name and is_same(output, data.parent) and fnmatchcase(name, data.name):
            raise UserError(f"The report's {name} would be among the data {data}. Choose another --output.")


def digest_of_files(path: Path) -> str:
    """Of a file, or of those that a pattern finds. Raises UserError where there is none."""
    from rlpf_pipeline.digests import digest_of, file_digest

    files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"No such file: {path}.")
    return file_digest(path) if files == [path] else digest_of({file.name: file_digest(file) for file in files})
