"""The A/B fit and report: ours beside statsmodels on the same rows, in one run.

    python -m benchmarks.bench_abtest --output abtest.json

Every entry runs in a process of its own, so that peak memory is its own; imports are not timed, and peak memory is also
given above that of the imports. `advertisers`: 34,849 rows in memory, coefficients with naive, quasi, HC0, HC1 and HC3
errors, median of five. `panel`: Parquet of an advertiser's days on disk, errors clustered by advertiser (ours sums in
DuckDB first, which is exact). `report`: `rlpf ab-report` from start to end, imports included.
"""

from __future__ import annotations

import json
import math
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

REPEATS = 5
BIG = 20_000_000
"""Panel rows above which there are a million advertisers, and statsmodels is not tried."""
STATSMODELS_ROWS = 1_000_000
Result = dict[str, Any]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def median_seconds(work: Callable[[], Result]) -> Result:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return {**result, "seconds": sorted(seconds)[REPEATS // 2]}


def once(work: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    return {**work(), "seconds": time.perf_counter() - start}


def our_fit(path: Path) -> Result:
    import pandas as pd

    from benchmarks.study_shape import FORMULA
    from rlpf_pipeline.abtest import log_binomial

    frame = pd.read_parquet(path)
    imports = peak_mib()

    def work() -> Result:
        fit = log_binomial(frame, FORMULA, successes="clicks", trials="impressions")
        return {"estimate": fit.coefficients["treatment"], "hc3": fit.standard_errors["hc3"]["treatment"]}

    return {**median_seconds(work), "imports_mib": imports}


def statsmodels_fit(path: Path) -> Result:
    import formulaic
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm

    from benchmarks.study_shape import FORMULA

    frame = pd.read_parquet(path)
    imports = peak_mib()

    def work() -> Result:
        design = formulaic.model_matrix(FORMULA, frame)
        n, family = frame["impressions"].to_numpy(), sm.families.Binomial(sm.families.links.Log())
        model = sm.GLM(frame["clicks"].to_numpy() / n, design, family, var_weights=n)
        naive = model.fit()
        robust = model.fit(cov_type="HC0")
        model.fit(scale="X2")
        x, mean = design.to_numpy(), naive.mu
        weight = n * mean / (1 - mean)
        bread = np.linalg.inv(x.T @ (x * ((n - frame["clicks"].to_numpy()) * mean / (1 - mean) ** 2)[:, None]))
        leverage = weight * np.einsum("ij,jk,ik->i", x, np.linalg.inv(x.T @ (x * weight[:, None])), x, optimize=True)
        scores = x * ((frame["clicks"].to_numpy() - n * mean) / (1 - mean) / (1 - leverage))[:, None]
        half = scores @ bread
        hc3 = np.sqrt(np.diag(half.T @ half))[list(design.columns).index("treatment")]
        return {"estimate": float(robust.params["treatment"]), "hc3": float(hc3)}

    return {**median_seconds(work), "imports_mib": imports}


def our_panel(path: Path) -> Result:
    from rlpf_pipeline.abtest import ExperimentSpec, headline_of

    imports = peak_mib()

    def work() -> Result:
        found = headline_of(path, ExperimentSpec(date="day"))
        return {"estimate": math.log(found.risk.estimate), "error": found.standard_errors["hc0"]}

    return {**once(work), "imports_mib": imports}


def statsmodels_panel(path: Path) -> Result:
    import formulaic
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm

    from benchmarks.study_shape import FORMULA

    imports = peak_mib()

    def work() -> Result:
        frame = pd.read_parquet(path)
        frame = frame[frame["impressions"] > 0].assign(
            treatment=lambda f: (f["arm"] == "treatment").astype(float),
            log_lifetime_ctr=lambda f: np.log(f["lifetime_ctr"] + 0.001),
            log_ads_before=lambda f: np.log1p(f["ads_before"]),
        )
        design = formulaic.model_matrix(FORMULA, frame)
        n, family = frame["impressions"].to_numpy(float), sm.families.Binomial(sm.families.links.Log())
        model = sm.GLM(frame["clicks"].to_numpy() / n, design, family, var_weights=n)
        groups = {"groups": pd.factorize(frame["advertiser_id"])[0], "use_correction": False}
        fit = model.fit(cov_type="cluster", cov_kwds=groups)
        return {"estimate": float(fit.params["treatment"]), "error": float(fit.bse["treatment"])}

    return {**once(work), "imports_mib": imports}


def write_advertisers(path: Path) -> Result:
    import numpy as np

    from benchmarks.study_shape import ADVERTISERS, advertisers

    advertisers(ADVERTISERS, np.random.default_rng(1)).drop(columns="ctr").to_parquet(path)
    return {"rows": ADVERTISERS}


def write_days(path: Path) -> Result:
    """The number of rows stands in the file's name."""
    from benchmarks.study_shape import ADVERTISERS, write_panel

    rows = int(path.stem.split("-")[1])
    number = 1_000_000 if rows > BIG else ADVERTISERS
    return {"rows": write_panel(path, number, max(2, round(rows / number)))}


ENTRIES: dict[str, Callable[[Path], Result]] = {
    "write advertisers": write_advertisers,
    "write panel": write_days,
    "our fit": our_fit,
    "statsmodels fit": statsmodels_fit,
    "our panel": our_panel,
    "statsmodels panel": statsmodels_panel,
}
CHILD = (
    "import json, sys, pathlib, warnings; warnings.simplefilter('ignore');"
    "from benchmarks.bench_abtest import ENTRIES, peak_mib;"
    "result = ENTRIES[sys.argv[1]](pathlib.Path(sys.argv[2]));"
    "print(json.dumps({**result, 'peak_mib': peak_mib()}))"
)


def measure(entry: str, path: Path) -> Result:
    """One entry in its own process; why it failed, where it did."""
    done = subprocess.run([sys.executable, "-c", CHILD, entry, str(path)], capture_output=True, text=True)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "Error" in line or "Exception" in line]
        return {"failed": said[-1] if said else f"ended with code {done.returncode} (out of memory?)"}
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def report(data: Path, folder: Path, spec: str) -> Result:
    """`rlpf ab-report` as a user starts it."""
    (folder / "spec.yaml").write_text(spec)
    options = ["--data", str(data), "--spec", str(folder / "spec.yaml"), "--output", str(folder / "report")]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rlpf_pipeline.cli", "ab-report", *options], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    return {
        "seconds": seconds,
        "largest_child_mib": usage,
        "html_kib": (folder / "report/report.html").stat().st_size / 1024,
    }


def main(
    rows: Annotated[list[float], typer.Option(help="Panel rows; repeat for several.")] = [3.5e5, 3.5e6],  # noqa: B006
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
        number = measure("write advertisers", table)["rows"]  # not here: a child starts with its parent's peak memory
        for entry in ("our fit", "statsmodels fit"):
            add(number, entry, measure(entry, table))
        add(number, "our report", report(table, place, ""))
        for size in sorted(int(number) for number in rows):
            panel = place / f"panel-{size}.parquet"
            written = measure("write panel", panel)["rows"]
            for entry in ("our panel", "statsmodels panel") if size <= STATSMODELS_ROWS else ("our panel",):
                add(written, entry, measure(entry, panel))
            if size <= BIG:
                add(written, "our report", report(panel, place, "date: day\n"))
            panel.unlink()
    Console().print(table_of(results))
    if output:
        machine = platform.processor() or platform.machine()
        output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


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
    typer.run(main)
