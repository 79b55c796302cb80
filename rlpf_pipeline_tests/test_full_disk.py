"""A full disk, for real: a small tmpfs in a mount namespace of its own, filled while the pipeline works on it."""

import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = """
import shutil, subprocess, sys
from pathlib import Path

import duckdb

disk, mount = Path(sys.argv[1]), ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", sys.argv[1]]
subprocess.run(mount, check=True)


def rlpf(*arguments):
    done = subprocess.run([sys.executable, "-m", "rlpf_pipeline.cli", *arguments], capture_output=True, text=True)
    return done.returncode, done.stderr


def succeeds(*arguments):
    code, said = rlpf(*arguments)
    assert code == 0, said


def is_refused(*arguments):
    code, said = rlpf(*arguments)
    assert code == 2 and "is full" in said and "Traceback" not in said, (code, said)


def tables():
    with duckdb.connect(str(disk / "production/warehouse.duckdb"), read_only=True) as connection:
        return [connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in ("ads", "variants", "pairs")]


def files():
    return {str(path): path.read_bytes() for path in (disk / "production").rglob("*.parquet") if path.is_file()}


def leave(bytes_free):
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes(shutil.disk_usage(disk).free - bytes_free))


succeeds("ingest", sys.argv[2], "--format", "generic")
succeeds("pairs", "--profile", "production")
tables_before, files_before = tables(), files()

leave(60_000)
is_refused("ingest", sys.argv[3], "--format", "generic")
assert files() == files_before and tables() == tables_before

(disk / "filler").unlink()
succeeds("ingest", sys.argv[3], "--format", "generic")
files_before = files()
for bytes_free in (300_000, 1_500_000, 2_400_000):  # before, and after some of the tables were replaced
    leave(bytes_free)
    is_refused("pairs", "--profile", "production")
    assert files() == files_before and tables() == tables_before
    (disk / "filler").unlink()

succeeds("pairs", "--profile", "production")
assert len(tables()[0]) > len(tables_before[0])

report = disk / "report"
succeeds("ab-report", "--data", sys.argv[4], "--output", report)
report_before = {path: path.read_bytes() for path in report.iterdir()}
leave(200_000)  # room for some of the report's files
is_refused("ab-report", "--data", sys.argv[5], "--output", report)
assert {path: path.read_bytes() for path in report.iterdir()} == report_before
is_refused("simulate", "--advertisers", "1200", "--output", disk / "market")
assert not list(disk.glob("market/*"))
is_refused("run", "--profile", "production")
print("as it was")
"""


def write_ads(path: Path, ads: range) -> Path:
    rows = [
        f"ad{ad},{v},Text {v} of ad {ad} {hash((ad, v))},1000,{10 + (ad + v) % 9}\n" for ad in ads for v in range(3)
    ]
    path.write_text("ad_id,variant_id,text,impressions,clicks\n" + "".join(rows))
    return path


def write_experiment(path: Path, clicks: int) -> Path:
    rows = [f"a{n},{('control', 'treatment')[n % 2]},1000,{clicks + n % 7}\n" for n in range(200)]
    path.write_text("advertiser_id,arm,impressions,clicks\n" + "".join(rows))
    return path


def test_a_full_disk_is_explained_and_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    probe = subprocess.run([*namespace, "mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine gives tests no mount namespace")
    monkeypatch.setenv("RLPF_HOME", str(disk))
    few, many = write_ads(tmp_path / "few.csv", range(40)), write_ads(tmp_path / "many.csv", range(40, 9000))
    experiments = [write_experiment(tmp_path / f"{clicks}.csv", clicks) for clicks in (20, 30)]
    inputs = [str(path) for path in (disk, few, many, *experiments)]
    done = subprocess.run([*namespace, sys.executable, "-c", INSIDE, *inputs], capture_output=True, text=True)
    assert done.stdout == "as it was\n", done.stdout + done.stderr
