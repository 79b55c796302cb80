"""The A/B fit and report: ours beside statsmodels on the same rows, in one run.

    python -m benchmarks.bench_abtest --output abtest.json

Every entry runs in a process of its own, so that peak memory is its own; imports are not timed, and peak memory is also
given above that of the imports. `advertisers`: 34,849 rows in memory, coefficients with naive, quasi, HC0, HC1 and HC3
errors, median of five. `panel`: Parquet of an advertiser's days on disk, errors clustered by advertiser (ours sums in
DuckDB first, which is exact): the first call of a process, median of five processes in turn; `again`: median of five
calls in one process. `rows`: the same panel as a pandas frame in memory, fitted with errors by cluster, median of five
calls. `report`: `rlpf ab-report` from start to end, imports included, median of three: the first may find packages that
are not byte-compiled yet (set-up leaves that to their first import), which alone takes 5 s.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.abtest_entries import BIG, REPEATS, Result, median_seconds
from benchmarks.running import as_command, result_of, write_results

STATSMODELS_ROWS = 1_000_000
LATER = ("our panel, again", "statsmodels panel, again", "our rows", "statsmodels rows")
CHILD = (
    "import json, sys, pathlib, warnings; warnings.simplefilter('ignore');"
    "from benchmarks.abtest_entries import ENTRIES, host_mib;"
    "result = ENTRIES[sys.argv[1]](pathlib.Path(sys.argv[2]));"
    "print(json.dumps({**result, 'peak_mib': host_mib()}))"
)


def medians_in_turn(entries: tuple[str, ...], path: Path, repeats: int) -> dict[str, Result]:
    """Of each entry the run of median time; the entries take turns, so that all see the machine in the same states."""
    runs: dict[str, list[Result]] = {entry: [] for entry in entries}
    for _ in range(repeats):
        for entry in entries:
            runs[entry].append(result_of(CHILD, entry, str(path)))
    return {
        entry: sorted(results, key=lambda result: result.get("seconds", math.inf))[len(results) // 2]
        for entry, results in runs.items()
    }


def report(data: Path, folder: Path, spec: str) -> Result:
    """`rlpf ab-report` as a user starts it, median of three."""
    (folder / "spec.yaml").write_text(spec)
    options = ["--data", str(data), "--spec", str(folder / "spec.yaml"), "--output", str(folder / "report")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "rlpf_pipeline.cli", "ab-report", *options]

    def work() -> Result:
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return {"html_kib": (folder / "report/report.html").stat().st_size / 1024}

    usage = resource.RUSAGE_CHILDREN
    return {**median_seconds(work, repeats=3), "largest_child_mib": resource.getrusage(usage).ru_maxrss / 2**10}


def main(
    rows: Annotated[list[float], typer.Option(min=1, help="Panel rows; repeat for several.")] = [3.5e5, 3.5e6],  # noqa: B006
    folder: Annotated[Path | None, typer.Option(help="Where scratch files go.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file of the results.")] = None,
) -> None:
    """Measure and print a table. Example: python -m benchmarks.bench_abtest --rows 3.5e5"""
    results: list[Result] = []

    def add(size: int, entry: str, result: Result) -> None:
        results.append({"rows": size, "entry": entry, **result})
        Console().print(results[-1])

    with TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        table = place / "advertisers.parquet"
        # Not here: a child starts with its parent's peak memory.
        number = result_of(CHILD, "write advertisers", str(table))["rows"]
        for entry in ("our fit", "statsmodels fit"):
            add(number, entry, result_of(CHILD, entry, str(table)))
        add(number, "our report", report(table, place, ""))
        for size in sorted(int(number) for number in rows):
            panel = place / f"panel-{size}.parquet"
            written = result_of(CHILD, "write panel", str(panel))["rows"]
            compared = size <= STATSMODELS_ROWS
            entries = ("our panel", "statsmodels panel") if compared else ("our panel",)
            for entry, result in medians_in_turn(entries, panel, 1 if size > BIG else REPEATS).items():
                add(written, entry, result)
            for entry in LATER if compared else ():
                add(written, entry, result_of(CHILD, entry, str(panel)))
            if size <= BIG:
                add(written, "our report", report(panel, place, "date: day\n"))
            panel.unlink()
    Console().print(table_of(results))
    if output:
        write_results(output, results=results)


def table_of(results: list[Result]) -> Table:
    table = Table("rows", "entry", "seconds", "times ours", "peak MiB", "above imports", title="A/B analysis")
    seconds = {(r["rows"], r["entry"]): r.get("seconds") for r in results}
    for result in results:
        if "seconds" not in result:
            table.add_row(f"{result['rows']:,}", result["entry"], result["failed"])
            continue
        own = seconds.get((result["rows"], result["entry"].replace("statsmodels", "our")))
        peak = f"{result['peak_mib']:.0f}" if "peak_mib" in result else ""
        above = f"{result['peak_mib'] - result['imports_mib']:.0f}" if "imports_mib" in result else ""
        ratio = f"{result['seconds'] / own:.1f}" if own else ""
        table.add_row(f"{result['rows']:,}", result["entry"], f"{result['seconds']:.2f}", ratio, peak, above)
    return table


if __name__ == "__main__":
    as_command(main)
