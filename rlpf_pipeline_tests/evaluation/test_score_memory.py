"""Scoring a file takes memory that does not grow with its rows."""

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from rlpf_pipeline.models.reward_folders import save_reward_model
from rlpf_pipeline.models.reward_model import RewardModel

MILLION = """
import sys, resource, numpy as np
from pathlib import Path
from rlpf_pipeline.evaluation.score_file import ScoreColumns, score_file

class Fast:
    log_odds = True

    def score(self, ads, on_progress):
        return [np.array([[len(text) + head for head in range(5)] for text in texts], np.float32) for _, texts in ads]

columns = ScoreColumns("headline", ("context",), ("ad",))
print(score_file(Fast(), Path(sys.argv[1]), columns, Path(sys.argv[2])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_millions_of_scattered_rows_take_no_more_memory_than_a_limit(tmp_path: Path) -> None:
    # 3 million distinct texts whose groups are strewn over the file: more than DuckDB's limit of 1 GB holds
    rows = 3_000_000
    duckdb.execute(
        f"""
        COPY (
            SELECT 'Industry ' || (i // 4 % 12) AS context, 'ad ' || (i // 4) AS ad, array_to_string(
                list_transform(range(12), lambda k: 'word' || hash(i * 64 + k) % 3000), ' '
            ) AS headline
            FROM range({rows}) AS t(i) ORDER BY hash(i)
        ) TO '{tmp_path / "input.parquet"}' (FORMAT parquet)
        """  # noqa: S608
    )
    command = [sys.executable, "-c", MILLION, str(tmp_path / "input.parquet"), str(tmp_path / "output.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"rows={rows}, texts={rows}" in done.stdout
    peak = int(done.stdout.split()[-1]) / 2**20
    assert peak < 1.9, f"{peak:.2f} GiB"
    path = str(tmp_path / "output.parquet")
    groups, ranks, total = duckdb.execute(
        "SELECT count(*), bool_and(first = 1), max(abs(p - 1)) FROM "
        "(SELECT min(rank) AS first, sum(p_best) AS p FROM read_parquet($path) GROUP BY ad)", {"path": path}
    ).fetchall()[0]  # fmt: skip
    assert (groups, ranks) == (rows // 4, True)
    assert total < 1e-9


COMMAND = """
import resource, sys
from rlpf_pipeline.cli import main

sys.argv = ["rlpf", *sys.argv[1:]]
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_times_the_rows_take_the_same_memory_with_a_model(
    tmp_path: Path, trained: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    save_reward_model(trained, tmp_path / "model")
    peaks = []
    for rows in (10_000, 100_000):
        table = pd.DataFrame({"text": [f"Buy book number {i} today" for i in range(rows)], "ad": np.arange(rows) // 4})
        table.to_parquet(tmp_path / "input.parquet")
        arguments = [
            "--reward-model",
            "model",
            "--input",
            "input.parquet",
            "--text-column",
            "text",
            "--group-column",
            "ad",
        ]
        command = [sys.executable, "-c", COMMAND, "score", *arguments, "--output", "output.parquet"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert f"{rows:,} rows scored" in done.stdout
        peaks.append(int(done.stdout.split()[-1]) / 2**20)
    assert peaks[1] < peaks[0] + 0.3, peaks
