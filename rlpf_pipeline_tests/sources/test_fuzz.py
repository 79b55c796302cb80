"""Damaged files: every mutation ends in counts that add up or in a UserError, never in a crash or a row lost."""

import json
import random

import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.ingest import ingest

ROWS = [
    {"ad_id": f"ad{n // 3}", "text": f'Text, "quoted" {n} ünïcode\u2028', "impressions": 100 + n, "clicks": n}
    for n in range(12)
]


def quoted(value):
    return '"' + str(value).replace('"', '""') + '"'


VALID = {
    "ads.csv": "\n".join([",".join(ROWS[0]), *(",".join(quoted(v) for v in row.values()) for row in ROWS)]) + "\n",
    "ads.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "ads.json": json.dumps(ROWS, ensure_ascii=False, indent=1),
}


def mutated(content, rng):
    """One to four edits: bytes exchanged, removed, put in or doubled, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        edit = rng.randrange(6)
        if edit == 0:
            data[at] = rng.randrange(256)
        elif edit == 1:
            del data[at : at + rng.randint(1, 8)]
        elif edit == 2:
            data[at:at] = rng.choice([b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b"{", b"]", b"-", b"1e9", b"\\"])
        elif edit == 3:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        elif edit == 4:
            data = data[: max(at, 1)]
        else:
            data[at : at + 1] = b"\xc3"
    return bytes(data)


def ingest_damaged(folder, name, seeds):
    path = folder / name
    outcomes = {"counted": 0, "refused": 0}
    for seed in seeds:
        path.write_bytes(mutated(VALID[name].encode(), random.Random(seed)) or b" ")
        try:
            counts = ingest([path], "generic", folder)
        except UserError:
            outcomes["refused"] += 1
            continue
        outcomes["counted"] += 1
        rejects = pq.read_table(folder / "rejects.parquet")
        assert counts.read == counts.accepted + counts.rejected, seed
        assert rejects.num_rows == counts.rejected, seed
        assert None not in rejects["reason"].to_pylist(), seed
    return outcomes


@pytest.mark.parametrize("name", VALID)
def test_damaged_files_never_crash_and_lose_no_row(tmp_path, name):
    outcomes = ingest_damaged(tmp_path, name, range(40))
    assert outcomes["refused"] > 0
    assert outcomes["counted"] > 0 or name == "ads.json"


@pytest.mark.slow
@pytest.mark.parametrize("name", VALID)
def test_a_thousand_damaged_files(tmp_path, name):
    outcomes = ingest_damaged(tmp_path, name, range(40, 1040))
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize("name", ["ads.csv", "ads.jsonl"])
def test_lines_damaged_one_by_one_leave_all_others_as_they_were(tmp_path, name):
    """Each line in turn gets an invalid byte in its text: that row is refused by number, and no other."""
    lines = VALID[name].encode().split(b"\n")
    header = 1 if name == "ads.csv" else 0
    for row in range(len(ROWS)):
        damaged = lines.copy()
        damaged[row + header] = damaged[row + header].replace(b"Text", b"T\xff\xfext")
        (tmp_path / name).write_bytes(b"\n".join(damaged))
        counts = ingest([tmp_path / name], "generic", tmp_path)
        (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
        assert (counts.read, counts.accepted, reject["row_number"]) == (12, 11, row + 1)
