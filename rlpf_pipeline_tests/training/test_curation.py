"""Curated examples: every source counted and filtered, rejects kept, some originals held out."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from rlpf_pipeline.contracts import CURATED_EXAMPLES
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.curation import is_held_out, write_curated_examples
from rlpf_pipeline.training.teacher import Chat
from rlpf_pipeline_tests.training.snapshots import write_snapshot

ADS = {
    "a": ["Fresh bread from our bakery every day.", "Every day our bakery has fresh bread."],
    "b": ["Book a yoga class at our studio today.", "Our studio has a yoga class for you."],
    "judged": ["Plant a rose in your own garden.", "Roses for your own garden, from us."],
}
OWN = [
    {
        "original": "We  clean your drain.",
        "instruction": None,
        "rewrite": "We clean your drain today.",
        "author": "human",
    },
    {
        "original": "We clean your drain.",
        "instruction": "Make this ad clearer",
        "rewrite": "A clean drain by noon.",
        "author": "synthetic",
    },
]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return write_snapshot(tmp_path / "snapshot", ADS, {"judged": "test"})


def teacher(chats: Sequence[Chat]) -> list[str]:
    """Shortens whatever it is asked about by its last word, or adds a price."""
    originals = [chat[1]["content"].partition(": ")[2] for chat in chats]
    return [f"{text} $9" if "yoga" in text else text.rpartition(" ")[0] for text in originals]


def curate(snapshot: Path, **settings: object) -> tuple[dict[str, int], pd.DataFrame, pd.DataFrame]:
    folder = snapshot.with_name("curated")
    folder.mkdir()
    counts = write_curated_examples(teacher, snapshot, TeacherSettings.model_validate(settings), 1, folder)
    return counts, pd.read_parquet(folder / "examples.parquet"), pd.read_parquet(folder / "rejects.parquet")


def write_lines(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_source_is_counted_and_the_teachers_slips_are_kept_with_the_reason(snapshot: Path) -> None:
    counts, examples, rejects = curate(snapshot, held_out=0.0)
    # The 36 shipped ones and the teacher's on ad a; the second text of either ad.
    assert counts == {"synthetic": 37, "human": 2, "own": 0, "held_out": 0, "rejected": 1}
    assert tuple(examples.columns) == CURATED_EXAMPLES.column_names
    assert examples.author.value_counts().to_dict() == {"synthetic": 37, "human": 2}
    assert rejects.rewrite.tolist() == [f"{ADS['b'][0]} $9"]
    assert rejects.reason.tolist() == ["numbers the original does not have: 9"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_users_own_examples_join_their_authors(snapshot: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"own.{kind}"
    if kind == "jsonl":
        write_lines(path, OWN)
    else:
        pd.DataFrame(OWN).to_parquet(path)
    counts, examples, _ = curate(snapshot, examples_file=path)
    assert (counts["own"], counts["human"], counts["synthetic"]) == (2, 3, 38)
    own = examples[examples.original == "We clean your drain."]
    assert own.rewrite.tolist() == [row["rewrite"] for row in OWN]
    assert own.author.tolist() == ["human", "synthetic"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"author": "robot"}, "author is neither human nor synthetic"),
        ({"author": None}, "author is neither human nor synthetic"),
        ({"original": " "}, "no original"),
        ({"rewrite": None}, "empty"),
        ({"rewrite": "We clean your drain for $5."}, "numbers the original does not have: 5"),
        ({"original": ADS["judged"][0]}, "a text of an ad of the test split"),
        ({"rewrite": ADS["judged"][1]}, "a text of an ad of the test split"),
    ],
)
def test_the_users_examples_pass_the_same_filter(
    snapshot: Path, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    counts, _, rejects = curate(snapshot, examples_file=write_lines(tmp_path / "own.jsonl", [OWN[0] | change, OWN[1]]))
    assert counts["own"] == 1
    assert rejects.reason.iloc[-1].startswith(reason)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("own.jsonl", '{"original": "a", "text": "b"}\n', r"lacks the column\(s\) instruction, rewrite, author"),
        (
            "own.jsonl",
            '{"original": ["a"], "instruction": "", "rewrite": "b", "author": ""}\n',
            r"original \(VARCHAR\[",
        ),
        ("own.jsonl", '{"Original": "a"}\n{"original": "a"}\n', "upper and lower case: Original and original"),
        ("own.jsonl", '{"original": "a"\n', "cannot be read"),
        ("own.jsonl", "", "is empty"),
        ("own.csv", "original\n", "JSON Lines"),
    ],
)
def test_a_file_that_holds_no_examples_is_refused(
    snapshot: Path, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        curate(snapshot, examples_file=tmp_path / name)


def test_examples_with_notes_of_many_kinds_are_read(snapshot: Path, tmp_path: Path) -> None:
    noted = [row | {f"note {number} of {side}": "x" for number in range(200)} for side, row in enumerate(OWN)]
    counts, _, _ = curate(snapshot, examples_file=write_lines(tmp_path / "own.jsonl", noted))
    assert counts["own"] == 2


def test_all_rewrites_of_an_original_are_held_out_or_none(snapshot: Path) -> None:
    counts, examples, _ = curate(snapshot, held_out=0.5)
    assert 0 < counts["held_out"] < len(examples)
    assert examples.groupby("original").held_out.nunique().max() == 1


def test_an_original_that_is_held_out_stays_so_when_the_share_grows() -> None:
    originals = [f"ad number {number}" for number in range(2000)]
    tenth, fifth = ({text for text in originals if is_held_out(text, share)} for share in (0.1, 0.2))
    assert tenth < fifth
    # A binomial count of 2,000 at .1 lies within five standard deviations (13.4) of 200.
    assert abs(len(tenth) - 200) < 5 * 13.4
