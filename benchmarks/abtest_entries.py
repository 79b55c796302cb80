"""What bench_abtest.py measures, each in a process of its own: imports no more than that needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.memory import host_mib

if TYPE_CHECKING:
    import pandas as pd

REPEATS = 5
BIG = 20_000_000
"""Panel rows above which there are a million advertisers, and statsmodels is not tried."""
Result = dict[str, Any]


def median_seconds(work: Callable[[], Result], repeats: int = REPEATS) -> Result:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return {**result, "seconds": sorted(seconds)[repeats // 2]}


def once(work: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    return {**work(), "seconds": time.perf_counter() - start}


Timer = Callable[[Callable[[], Result]], Result]


def our_fit(path: Path) -> Result:
    import pandas as pd

    from benchmarks.study_shape import FORMULA
    from rlpf_pipeline.abtest import log_binomial

    frame = pd.read_parquet(path)
    imports = host_mib()

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
    imports = host_mib()

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


def our_panel(path: Path, timed: Timer = once) -> Result:
    from rlpf_pipeline.abtest import ExperimentSpec, headline_of

    imports = host_mib()

    def work() -> Result:
        found = headline_of(path, ExperimentSpec(date="day"))
        return {"estimate": math.log(found.risk.estimate), "error": found.standard_errors["hc0"]}

    return {**timed(work), "imports_mib": imports}


def statsmodels_panel(path: Path, timed: Timer = once) -> Result:
    import pandas as pd

    fit = clustered_by_statsmodels()
    imports = host_mib()
    return {**timed(lambda: fit(with_logs(pd.read_parquet(path)))), "imports_mib": imports}


def our_rows(path: Path) -> Result:
    import pandas as pd

    from benchmarks.study_shape import FORMULA
    from rlpf_pipeline.abtest import log_binomial

    frame = with_logs(pd.read_parquet(path))
    imports = host_mib()

    def work() -> Result:
        fit = log_binomial(frame, FORMULA, successes="clicks", trials="impressions", cluster="advertiser_id")
        return {"estimate": fit.coefficients["treatment"], "error": fit.standard_errors["cluster"]["treatment"]}

    return {**median_seconds(work), "imports_mib": imports}


def statsmodels_rows(path: Path) -> Result:
    import pandas as pd

    fit, frame = clustered_by_statsmodels(), with_logs(pd.read_parquet(path))
    imports = host_mib()
    return {**median_seconds(lambda: fit(frame)), "imports_mib": imports}


def with_logs(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a panel with impressions, and what FORMULA names."""
    import numpy as np

    return frame[frame["impressions"] > 0].assign(
        treatment=lambda f: (f["arm"] == "treatment").astype(float),
        log_lifetime_ctr=lambda f: np.log(f["lifetime_ctr"] + 0.001),
        log_ads_before=lambda f: np.log1p(f["ads_before"]),
    )


def clustered_by_statsmodels() -> Callable[[pd.DataFrame], Result]:
    """The fit of a panel's rows, with what it imports."""
    import formulaic
    import pandas as pd
    import statsmodels.api as sm

    from benchmarks.study_shape import FORMULA

    def fit(frame: pd.DataFrame) -> Result:
        design = formulaic.model_matrix(FORMULA, frame)
        n, family = frame["impressions"].to_numpy(float), sm.families.Binomial(sm.families.links.Log())
        model = sm.GLM(frame["clicks"].to_numpy() / n, design, family, var_weights=n)
        groups = {"groups": pd.factorize(frame["advertiser_id"])[0], "use_correction": False}
        found = model.fit(cov_type="cluster", cov_kwds=groups)
        return {"estimate": float(found.params["treatment"]), "error": float(found.bse["treatment"])}

    return fit


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
    "our rows": our_rows,
    "statsmodels rows": statsmodels_rows,
    "our panel, again": partial(our_panel, timed=median_seconds),
    "statsmodels panel, again": partial(statsmodels_panel, timed=median_seconds),
}
