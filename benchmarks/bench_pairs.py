"""Raw multitext ads to preference pairs to snapshot: DuckDB (ours), polars and pandas on the same rows.

    python -m benchmarks.bench_pairs --rows 1e6 --rows 1e7 --output pairs.json

Every entry runs in a process of its own, so that peak memory is its own. All read the same Parquet file, with the
splits given, sum counts by ad and text, estimate the prior, make all pairs with their probability and p-value, and
write three tables in order as Parquet: ads, variants with the number of their ad, pairs with those of their variants.
At the smallest size the pairs of all entries are compared. Ours alone is timed for ingest, the splits and the delivery
too (rows judged; near-duplicates and clusters; evenness), which the others have no counterpart for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.pairs_with_frames import PAIRS, Clock, with_pandas, with_polars
from benchmarks.running import among, as_command, result_of, write_results
from rlpf_pipeline.preferences.ranges import ranges_of_ads
from rlpf_pipeline.preferences.splits import build_splits
from rlpf_pipeline.preferences.stages import build_ads_and_variants, build_preference_pairs, export_snapshot
from rlpf_pipeline.sources.ingest import ingest
from rlpf_pipeline.warehouse import Warehouse, connect

TEXTS_OF_AD = 4
OURS = "ours (DuckDB)"
WORDS = 3000

# In order of ad_id, as ingest leaves the raw table.
# Words are drawn from a Zipf-like vocabulary; one ad in fifty repeats another's texts, one in fifty nearly.
WRITE_ROWS = """
COPY (
    SELECT
        'bench' AS source,
        'ad-' || ad AS ad_id,
        'advertiser-' || hash(ad * 31) % $advertisers AS advertiser_id,
        'Industry: ' || hash(ad) % 12 AS context,
        'v' || place AS variant_id,
        array_to_string(
            list_transform(
                range((7 + hash(copied * 5 + place) % 6 + CASE WHEN ad % 50 = 1 THEN 1 ELSE 0 END)::BIGINT),
                lambda i: 'word' || floor(power($words, (hash(copied * 64 + place * 16 + i) % 100000) / 1e5))::INTEGER
            ), ' '
        ) AS text,
        impressions,
        least(impressions, (impressions * 0.03 * exp(0.45 * (hash(ad * 7) % 1000 / 500 - 1)
            + 0.3 * (hash(ad * 8 + place) % 1000 / 500 - 1)))::BIGINT) AS clicks,
        NULL::VARCHAR AS period
    FROM (
        SELECT
            row // $variants AS ad,
            row % $variants AS place,
            CASE WHEN ad % 50 < 2 THEN ad // 2 ELSE ad END AS copied,
            (100 * exp(hash(row) % 1000 / 200))::BIGINT AS impressions
        FROM range($rows) AS rows(row)
    )
    ORDER BY ad_id, variant_id
) TO $path (FORMAT parquet, COMPRESSION zstd)
"""


def write_rows(folder: Path, rows: int) -> None:
    """raw.parquet and splits.parquet of `rows` variants."""
    with connect(folder / "scratch.duckdb", {"memory_limit": "4GB"}) as connection:
        raw = str(folder / "raw.parquet")
        sizes = {"rows": rows, "variants": TEXTS_OF_AD, "advertisers": max(rows // 40, 1), "words": WORDS}
        connection.execute(WRITE_ROWS, {**sizes, "path": raw})
        connection.execute(
            """COPY (
                SELECT
                    (row_number() OVER (ORDER BY ad_id) - 1)::INTEGER AS ad,
                    ad_id,
                    ad AS cluster,
                    CASE WHEN hash(ad_id) % 2 = 0 THEN 'train' ELSE 'test' END AS split
                FROM (SELECT DISTINCT ad_id FROM read_parquet($raw))
            ) TO $path (FORMAT parquet)""",
            {"raw": raw, "path": str(folder / "splits.parquet")},
        )


def ours(given: Path, output: Path) -> dict[str, float]:
    with Warehouse(output / "bench.duckdb") as warehouse:
        clock = Clock()
        warehouse.view_parquet("raw_multitext_ads", given / "raw.parquet")
        warehouse.connection.execute(
            "CREATE TABLE splits AS FROM read_parquet($path)", {"path": str(given / "splits.parquet")}
        )
        build_ads_and_variants(warehouse)
        clock("variants")
        build_preference_pairs(warehouse, PAIRS)
        clock("pairs")
        export_snapshot(warehouse, output)
        clock("snapshot")
    return clock.seconds


def our_splits(given: Path, output: Path) -> dict[str, float]:
    with Warehouse(output / "bench.duckdb") as warehouse:
        warehouse.view_parquet("raw_multitext_ads", given / "raw.parquet")
        clock = Clock()
        build_splits(warehouse, PAIRS, seed=1)
        clock("near-duplicates, clusters, splits")
        warehouse.run_parts("marts/delivery", ranges_of_ads(warehouse, "splits"))
        clock("delivery")
    return clock.seconds


def our_ingest(given: Path, output: Path) -> dict[str, float]:
    clock = Clock()
    ingest([given / "raw.parquet"], "generic", output)
    clock("ingest")
    return clock.seconds


ENTRIES: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    OURS: ours,
    "polars": with_polars,
    "pandas": with_pandas,
    "our splits": our_splits,
    "our ingest": our_ingest,
}

CHILD = (
    "import json, sys, time, pathlib; from benchmarks.bench_pairs import ENTRIES;"
    "from benchmarks.memory import host_mib;"
    "seconds = ENTRIES[sys.argv[1]](*map(pathlib.Path, sys.argv[2:]));"
    "spent = {'processor_seconds': time.process_time(), 'peak_gib': host_mib() / 2**10};"
    "print(json.dumps({'seconds': seconds, **spent}))"
)


def measure(entry: str, given: Path, output: Path) -> dict[str, Any]:
    """Seconds by step, processor time and peak memory of one entry in its own process; why it failed, where it did."""
    output.mkdir()
    return result_of(CHILD, entry, str(given), str(output))


def largest_difference(one: Path, other: Path) -> float:
    """Largest difference of any number of the two pair tables; raises where they hold different pairs."""
    with connect() as connection:
        columns = ("exposure", "effect", "z", "p_left_better", "p_value", "weight")
        differences = ", ".join(f"max(abs(a.{column} - b.{column}))" for column in columns)
        query = f"""SELECT count(*), count(a.z), count(b.z), greatest({differences})
            FROM read_parquet($one) AS a FULL JOIN read_parquet($other) AS b USING (left_variant, right_variant)"""  # noqa: S608
        rows, left, right, difference = connection.execute(query, {"one": str(one), "other": str(other)}).fetchall()[0]
    if not rows == left == right:
        raise RuntimeError(f"The entries made different pairs: {left} and {right} of {rows}.")
    return float(difference)


def main(
    rows: Annotated[list[float], typer.Option(min=1, help="Variants; repeat for several sizes.")] = [1e6, 1e7],  # noqa: B006
    entry: Annotated[list[str], typer.Option(help="Entries to run.", callback=among(ENTRIES))] = list(ENTRIES),  # noqa: B006
    pandas_up_to: Annotated[float, typer.Option(help="Rows beyond which pandas and polars are left out.")] = 1e7,
    folder: Annotated[Path | None, typer.Option(help="Where scratch files go.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file of the results.")] = None,
) -> None:
    """Measure and print a table. Example: python -m benchmarks.bench_pairs --rows 1e6 --output pairs.json"""
    results = []
    for size in sorted(int(number) for number in rows):
        with TemporaryDirectory(dir=folder) as scratch:
            write_rows(Path(scratch), size)
            chosen = [name for name in entry if size <= pandas_up_to or name.startswith("our")]
            for name in chosen:
                output_folder = Path(scratch) / name
                result = {"rows": size, "entry": name, **measure(name, Path(scratch), output_folder)}
                if size > min(rows):
                    shutil.rmtree(output_folder)
                results.append(result)
                Console().print(result)
            if size == min(rows):
                own = Path(scratch) / OURS / "pairs.parquet" / "*.parquet"
                made = {str(r["entry"]) for r in results if r["rows"] == size and "seconds" in r}
                for name in {"polars", "pandas"} & made if OURS in made else ():
                    difference = largest_difference(own, Path(scratch) / name / "pairs.parquet")
                    print(f"largest difference to {name}: {difference:.2g}")
    Console().print(table_of(results))
    if output:
        write_results(output, results=results)


def table_of(results: list[dict[str, Any]]) -> Table:
    columns = ("rows", "entry", "seconds", "times ours", "processor s", "peak GiB")
    table = Table(*columns, title="Raw ads to preference snapshot")
    total = {(r["rows"], r["entry"]): sum(r["seconds"].values()) for r in results if "seconds" in r}
    for result in results:
        rows, entry = result["rows"], result["entry"]
        if (rows, entry) not in total:
            table.add_row(f"{rows:,}", str(entry), str(result["failed"]))
            continue
        seconds, own = total[rows, entry], total.get((rows, OURS))
        ratio = f"{seconds / own:.2f}" if own else ""
        used, peak = f"{result['processor_seconds']:.1f}", f"{result['peak_gib']:.2f}"
        table.add_row(f"{rows:,}", str(entry), f"{seconds:.1f}", ratio, used, peak)
    return table


if __name__ == "__main__":
    as_command(main)
