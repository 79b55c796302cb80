from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.generate_file import generate_file
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training import suggest as module
from rlpf_pipeline.training.suggest import Policy, suggest
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.tiny_ppo import Likes


@pytest.fixture(scope="module")
def policy(cache: Path) -> Policy:
    return Policy(load_causal_lm(TINY, cache), load_tokenizer(TINY, cache), PolicySettings(max_new_tokens=4))


@pytest.fixture
def drawn(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the policy writes, round by round; "…" at the end is a text cut off."""
    rounds: list[list[str]] = []

    def sample(model, prompts, samples, sampling, generator, batch):  # type: ignore[no-untyped-def]
        texts = rounds.pop(0) if rounds else ["same"]
        ids = [policy.tokenizer(text.removesuffix("…"), add_special_tokens=False)["input_ids"] for text in texts]
        ended = [own + [sampling.eos_id] * (not text.endswith("…")) for own, text in zip(ids, texts, strict=True)]
        yield from ([ended] for _ in prompts)

    monkeypatch.setattr(module, "batches_of_samples", sample)
    return rounds


def test_suggestions_are_distinct_finished_and_no_copies(policy: Policy, drawn: list[list[str]]) -> None:
    drawn += [["bread", "Bread", "Fresh  bread", "cut…"], ["bread", "now", "FRESH BREAD", ""], ["day"]]
    (own,) = suggest(policy, [(None, "Fresh bread")], 3, seed=0)
    assert [suggestion.text for suggestion in own] == ["bread", "now", "day"]


def test_the_reward_model_ranks_by_the_gain_over_the_original(policy: Policy, drawn: list[list[str]]) -> None:
    drawn += [["a", "aaa", "aa"]]
    (own,) = suggest(policy, [(None, "aa b")], 3, 0, Likes(lambda text: text.count("a")))  # type: ignore[arg-type]
    assert [tuple(suggestion) for suggestion in own] == [("aaa", 1.0, 0.0), ("aa", 0.0, 0.0), ("a", -1.0, 0.0)]


def test_a_gain_that_the_heads_disagree_about_comes_behind_a_smaller_one_that_they_share(
    policy: Policy, drawn: list[list[str]]
) -> None:
    drawn += [["bold", "sure", "poor"]]
    heads = {"Bread": [0.0, 0.0], "bold": [4.0, 0.0], "sure": [1.5, 0.5], "poor": [-1.0, -1.0]}

    class Disagrees(Likes):
        def score(self, ads):  # type: ignore[no-untyped-def]
            return [np.array([heads[text] for text in texts], np.float32) for _, texts in ads]

    (own,) = suggest(policy, [(None, "Bread")], 3, 0, Disagrees(len))  # type: ignore[arg-type]
    assert [tuple(suggestion) for suggestion in own] == [("sure", 1.0, 0.5), ("bold", 2.0, 2.0), ("poor", -1.0, 0.0)]


def test_fewer_come_back_where_the_policy_repeats_itself(policy: Policy, drawn: list[list[str]]) -> None:
    assert [s.text for s in suggest(policy, [(None, "Bread")], 3, 0)[0]] == ["same"]


def test_progress_rises_once_and_counts_a_draw_that_did_not_serve_as_a_part(
    policy: Policy, drawn: list[list[str]]
) -> None:
    """Five ads, five draws each, none of which finds a second text."""
    seen: list[tuple[int, int]] = []
    suggest(policy, [(None, f"Bread {i}") for i in range(5)], 2, 0, on_progress=lambda *own: seen.append(own))
    assert seen == [(draws // 5, 5) for draws in range(1, 26)]


def test_progress_of_ads_that_one_draw_serves_is_their_number(policy: Policy, drawn: list[list[str]]) -> None:
    drawn += [["one", "two"]]
    seen: list[tuple[int, int]] = []
    suggest(policy, [(None, "Bread"), (None, "Cake")], 2, 0, on_progress=lambda *own: seen.append(own))
    assert seen == [(1, 2), (2, 2)]


def test_the_same_seed_writes_the_same(policy: Policy) -> None:
    hot = policy._replace(settings=PolicySettings(max_new_tokens=4, temperature=3.0))
    ads = [(None, "Bread"), (None, "Cake")]
    assert suggest(hot, ads, 2, seed=5) == suggest(hot, ads, 2, seed=5)


@pytest.mark.parametrize(("text", "says"), [(" 12 !", "no letter"), ("bread " * 600, "too long")])
def test_a_text_that_cannot_be_asked_for_is_refused(policy: Policy, text: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"Text number 2 .*{says}"):
        suggest(policy, [(None, "Bread"), (None, text)], 1, 0)


def test_a_file_gets_a_row_a_suggestion(policy: Policy, drawn: list[list[str]], tmp_path: Path) -> None:
    drawn += [["one", "two"]]
    (tmp_path / "ads.csv").write_text("id,headline\n007,Bread\n008,Bread\n")
    output = tmp_path / "out.parquet"
    assert generate_file(policy, tmp_path / "ads.csv", "headline", 2, 0, output) == (2, 0)
    assert pq.read_table(output).to_pylist() == [
        {"row": row, "original": "Bread", "rank": rank, "text": text, "reward": None, "reward_spread": None}
        for row in (1, 2)
        for rank, text in ((1, "one"), (2, "two"))
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ads.csv", "out.parquet"]


def test_a_column_named_rowid_does_not_order_the_rows(policy: Policy, drawn: list[list[str]], tmp_path: Path) -> None:
    drawn += [["one"], ["two"]]
    (tmp_path / "ads.csv").write_text("RowID,headline\n9,Bread\n3,Cake\n")
    generate_file(policy, tmp_path / "ads.csv", "headline", 1, 0, tmp_path / "out.parquet")
    written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(own["row"], own["original"]) for own in written] == [(1, "Bread"), (2, "Cake")]


@pytest.mark.parametrize(("context", "text"), [(None, "Caf\udce9"), ("Caf\udce9", "Bread")])
def test_bytes_that_are_no_utf_8_are_refused(policy: Policy, context: str | None, text: str) -> None:
    """As the command line passes on a byte of Latin-1."""
    with pytest.raises(UserError, match=r"no UTF-8: '(Caf\\udce9|Bread)'"):
        suggest(policy, [(context, text)], 1, 0)


def test_a_text_of_a_file_is_named_by_its_row(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "ads.csv").write_text("headline\nBread\nBread\n12\n")
    with pytest.raises(UserError, match="Text number 3 holds no letter"):
        generate_file(policy, tmp_path / "ads.csv", "headline", 1, 0, tmp_path / "out.parquet")


def test_an_output_that_cannot_be_written_is_refused_before_texts_are(
    policy: Policy, drawn: list[list[str]], tmp_path: Path
) -> None:
    drawn += [["one"]]
    (tmp_path / "ads.csv").write_text("headline\nBread\n")
    with pytest.raises(UserError, match="cannot be written: File exists"):
        generate_file(policy, tmp_path / "ads.csv", "headline", 1, 0, tmp_path / "ads.csv" / "out.parquet")
    assert drawn == [["one"]]


def test_the_reward_model_reads_the_context_before_the_texts(
    policy: Policy, drawn: list[list[str]], tmp_path: Path
) -> None:
    read = []

    class Reads(Likes):
        def score(self, ads):  # type: ignore[no-untyped-def]
            read.extend(context for context, _ in ads)
            return super().score(ads)

    judge, output = Reads(len), tmp_path / "out.parquet"
    drawn += [["one"], ["one"]]
    suggest(policy, [(" Industry:  bakery", "Bread")], 1, 0, judge)  # type: ignore[arg-type]
    (tmp_path / "ads.csv").write_text("headline,industry,place\nBread,bakery,Oslo\nBread,,\nBread,bakery,Oslo\n")
    assert generate_file(
        policy,
        tmp_path / "ads.csv",
        "headline",
        1,
        0,
        output,
        judge,
        ["industry", "place"],  # type: ignore[arg-type]
    ) == (3, 0)
    assert read == ["Industry: bakery", "bakery Oslo", None]
    assert pq.read_table(output)["row"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("column", "output", "says"),
    [
        ("title", "out.parquet", "no column 'title'"),
        ("text", "out.csv", r"ends in \.parquet"),
        ("n", "o.parquet", "not text"),
    ],
)
def test_mistakes_are_named(policy: Policy, tmp_path: Path, column: str, output: str, says: str) -> None:
    pq.write_table(pa.table({"text": ["Bread"], "n": [1]}), tmp_path / "ads.parquet")
    with pytest.raises(UserError, match=says):
        generate_file(policy, tmp_path / "ads.parquet", column, 2, 0, tmp_path / output)
