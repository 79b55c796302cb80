import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.score_file import CHUNK, ScoreColumns, Scored, score_file
from rlpf_pipeline.models.adapters import ModelCard
from rlpf_pipeline.models.reward_folders import load_reward_model, save_reward_model
from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline_tests.conftest import TINY

HEADS = {"Bread": (1.0, 3.0), "Fresh bread": (2.0, 2.0), "Call us": (0.0, 0.5)}


class Table:
    """Scores by HEADS, whatever the context; remembers what it was asked."""

    log_odds = True

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, list[str]]] = []

    def score(self, ads, on_progress):  # type: ignore[no-untyped-def]
        self.asked += ads
        return [np.array([HEADS[text] for text in texts], np.float32) for _, texts in ads]


def scored(tmp_path: Path, text: str, columns: ScoreColumns, model: object = None) -> pd.DataFrame:
    (tmp_path / "input.csv").write_text(text)
    score_file(model or Table(), tmp_path / "input.csv", columns, tmp_path / "output.parquet")  # type: ignore[arg-type]
    return pd.read_parquet(tmp_path / "output.parquet")


def test_rows_and_columns_stay_and_scores_are_added(tmp_path: Path) -> None:
    table = scored(tmp_path, "id,Headline\n007,Call us\n008,Bread\n,Call us\n", ScoreColumns("Headline"))
    assert table.columns.tolist() == ["id", "Headline", "reward_mean", "reward_spread"]
    assert table.id.tolist() == ["007", "008", None]
    assert table.Headline.tolist() == ["Call us", "Bread", "Call us"]
    assert table.reward_mean.tolist() == [0.25, 2.0, 0.25]
    assert table.reward_spread.tolist() == [0.25, 1.0, 0.25]


def test_rank_and_p_best_by_hand(tmp_path: Path) -> None:
    text = "ad,text\n2,Bread\n1,Bread\n1,Call us\n2,Call us\n1,Fresh bread\n"
    table = scored(tmp_path, text, ScoreColumns("text", group=("ad",)))
    # means: Bread 2, Fresh bread 2, Call us .25
    assert table["rank"].tolist() == [1, 1, 3, 2, 1]
    heads = np.array([HEADS[name] for name in ("Bread", "Call us", "Fresh bread")])
    by_hand = softmax(heads, axis=0).mean(1)
    assert table.p_best[[1, 2, 4]].tolist() == pytest.approx(by_hand.tolist())
    # of two texts it is the mean of sigmoid(margin): heads 1 - 0 and 3 - .5
    assert table.p_best[0] == pytest.approx((expit(1.0) + expit(2.5)) / 2)
    assert table.p_best[0] + table.p_best[3] == pytest.approx(1)


def test_the_output_may_lie_in_a_folder_that_reads_as_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "out[1]").mkdir()
    assert len(scored(tmp_path / "out[1]", "g,text\n1,Bread\n", ScoreColumns("text"))) == 1


def test_p_best_is_the_chance_to_win_under_gumbel_noise(tmp_path: Path) -> None:
    # Luce's choice axiom as a race (Yellott 1977): score + Gumbel noise, a head drawn at random
    table = scored(tmp_path, "g,text\n1,Bread\n1,Fresh bread\n1,Call us\n", ScoreColumns("text", group=("g",)))
    rng = np.random.default_rng(0)
    heads = np.array([HEADS[text] for text in table.text])[:, rng.integers(2, size=100_000)]
    wins = np.bincount((heads + rng.gumbel(size=heads.shape)).argmax(0), minlength=3) / 100_000
    assert table.p_best.tolist() == pytest.approx(wins.tolist(), abs=0.006)


def test_a_pointwise_model_gives_ranks_but_no_chance_to_be_the_best(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = RewardSettings(objective="pointwise")
    save_reward_model(new_reward_model(TINY, settings, settings.lora, "reward_model", cache), tmp_path)
    text, columns = "g,text\n1,Bread\n1,Call us\n", ScoreColumns("text", group=("g",))
    table = scored(tmp_path, text, columns, load_reward_model(tmp_path, cache))
    assert table.columns.tolist() == ["g", "text", "reward_mean", "reward_spread", "rank"]
    assert "p_best is left out: the reward model was trained pointwise" in caplog.text


def test_a_model_from_before_the_objective_was_kept_is_pairwise(tmp_path: Path, trained: RewardModel) -> None:
    card = json.loads(trained.card.model_dump_json())
    del card["objective"]
    (tmp_path / "model.json").write_text(json.dumps(card))
    assert ModelCard.read(tmp_path).objective == "pairwise"


def test_a_text_that_a_group_holds_twice_competes_once(tmp_path: Path) -> None:
    table = scored(tmp_path, "g,text\n1,Bread\n1,Bread \n1,Call us\n", ScoreColumns("text", group=("g",)))
    assert table["rank"].tolist() == [1, 1, 2]
    assert table.p_best[0] == table.p_best[1] == pytest.approx((expit(1.0) + expit(2.5)) / 2)


def test_rows_without_a_group_are_groups_of_one(tmp_path: Path) -> None:
    table = scored(
        tmp_path, "g,h,text\n,,Bread\n,,Call us\n1,,Bread\n1,,Call us\n", ScoreColumns("text", group=("g", "h"))
    )
    assert table["rank"].tolist() == [1, 1, 1, 2]
    assert table.p_best[:2].tolist() == [1, 1]


def test_an_empty_group_of_json_lines_is_none(tmp_path: Path) -> None:
    rows = [{"g": "", "text": "Bread"}, {"g": " ", "text": "Call us"}, {"g": "", "text": "Fresh bread"}]
    (tmp_path / "ads.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "output.parquet"
    score_file(Table(), tmp_path / "ads.jsonl", ScoreColumns("text", group=("g",)), output)
    assert pd.read_parquet(output)["rank"].tolist() == [1, 1, 1]


def test_group_values_are_not_run_together(tmp_path: Path) -> None:
    columns = ScoreColumns("text", group=("g", "h"))
    table = scored(tmp_path, 'g,h,text\n"1,2",3,Bread\n1,"2,3",Call us\n', columns)
    assert table["rank"].tolist() == [1, 1]


def test_no_name_of_a_column_is_in_the_way(tmp_path: Path) -> None:
    text = "number,row,heads,group_key,context,input,rank,text\n1,2,3,4,5,6,7,Bread\n1,2,3,4,5,6,7,Call us\n"
    table = scored(tmp_path, text.replace("rank", "p"), ScoreColumns("text", group=("number",)))
    assert table.iloc[0, :8].tolist() == ["1", "2", "3", "4", "5", "6", "7", "Bread"]
    assert table["rank"].tolist() == [1, 2]
    assert scored(tmp_path, text, ScoreColumns("text")).reward_mean.tolist() == [2.0, 0.25]


def test_distinct_texts_are_scored_once_in_the_form_of_training(tmp_path: Path) -> None:
    model = Table()
    scored(tmp_path, 'text\nBread\n Bread\n"Fresh \n bread"\nFresh\u00a0bread\nBread\n', ScoreColumns("text"), model)
    assert sorted(model.asked) == [(None, ["Bread"]), (None, ["Fresh bread"])]


def test_context_columns_are_joined_and_shared(tmp_path: Path) -> None:
    model = Table()
    text = "a,b,text\nShop, today,Bread\nShop,today,Call us\n,,Bread\nx,,Bread\n,y,Bread\n"
    scored(tmp_path, text, ScoreColumns("text", ("a", "b")), model)
    assert model.asked == [(None, ["Bread"]), ("Shop today", ["Bread", "Call us"]), ("x", ["Bread"]), ("y", ["Bread"])]


def test_scores_are_those_of_the_model_on_its_own(tmp_path: Path, trained: RewardModel) -> None:
    rows = [("Books", f"Buy book {i}", i % 3) for i in range(20)] + [("", f"Bread {i}", 3) for i in range(7)]
    pd.DataFrame(rows, columns=["context", "text", "g"]).to_csv(tmp_path / "input.csv", index=False)
    columns = ScoreColumns("text", ("context",), ("g",))
    assert score_file(trained, tmp_path / "input.csv", columns, tmp_path / "o.parquet") == Scored(27, 27)
    table = pd.read_parquet(tmp_path / "o.parquet")
    alone = np.concatenate([trained.score([(context or None, [text])])[0] for context, text, _ in rows])
    assert table.reward_mean.tolist() == pytest.approx(alone.mean(1).tolist(), abs=1e-6)
    assert table.reward_spread.tolist() == pytest.approx(alone.std(1).tolist(), abs=1e-6)
    assert table.reward_spread.min() > 0


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, trained: RewardModel) -> None:
    rows = [(f"g{i % 50}", f"text {i}") for i in range(500)]
    pd.DataFrame(rows, columns=["g", "text"]).to_csv(tmp_path / "input.csv", index=False)
    for name in ("one.parquet", "two.parquet"):
        score_file(trained, tmp_path / "input.csv", ScoreColumns("text", group=("g",)), tmp_path / name)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_progress_counts_distinct_texts_as_the_model_scores_them(tmp_path: Path) -> None:
    class Zero:
        def score(self, ads, on_progress):  # type: ignore[no-untyped-def]
            on_progress(3)
            on_progress(len(ads))
            return [np.zeros((len(texts), 1)) for _, texts in ads]

    pd.DataFrame({"text": [f"t{i % (CHUNK + 5)}" for i in range(2 * CHUNK)]}).to_csv(tmp_path / "i.csv", index=False)
    seen: list[tuple[int, int]] = []
    score_file(
        Zero(),
        tmp_path / "i.csv",
        ScoreColumns("text"),
        tmp_path / "o.parquet",
        lambda *progress: seen.append(progress),
    )
    assert seen == [(done, CHUNK + 5) for done in (0, 3, CHUNK, CHUNK + 3, CHUNK + 5)]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,b\n1,x\n", ScoreColumns("text"), r"no column 'text'\. It has: a, b"),
        ("a,text\n1,x\n", ScoreColumns("text", group=("ad",)), "no column 'ad'"),
        ("a,text\n1,x\n2,\n3, \n", ScoreColumns("text"), r"empty in 2 row\(s\), first in row 2"),
        ("a,text\n1,2\n", ScoreColumns("text"), "holds no letter"),
        ("reward_mean,text\n1,x\n", ScoreColumns("text"), r"has the column\(s\) reward_mean already"),
        ("Rank,text\n1,x\n", ScoreColumns("text", group=("Rank",)), r"has the column\(s\) Rank already"),
        ("g,c,text\n1,x,Bread\n1,y,Call us\n", ScoreColumns("text", ("c",), ("g",)), "2 different contexts"),
    ],
)
def test_what_is_wrong_with_the_input_is_said(tmp_path: Path, text: str, columns: ScoreColumns, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scored(tmp_path, text, columns)
    assert [path.name for path in tmp_path.iterdir()] == ["input.csv"]


def test_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    pd.DataFrame({"text": [1.5, None]}).to_parquet(tmp_path / "input.parquet")
    with pytest.raises(UserError, match="holds DOUBLE, not text"):
        score_file(Table(), tmp_path / "input.parquet", ScoreColumns("text"), tmp_path / "o.parquet")


def test_missing_texts_of_pandas_are_missing(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["Bread", float("nan"), None]}).to_parquet(tmp_path / "input.parquet")
    with pytest.raises(UserError, match=r"empty in 2 row\(s\), first in row 2"):
        score_file(Table(), tmp_path / "input.parquet", ScoreColumns("text"), tmp_path / "o.parquet")


@pytest.mark.parametrize("name", ["input.parquet", "input.jsonl"])
def test_a_context_that_no_row_has_is_none(tmp_path: Path, name: str) -> None:
    rows = pd.DataFrame({"text": ["Bread", "Call us"], "industry": [None, None]})
    rows.to_parquet(tmp_path / "input.parquet")
    rows.to_json(tmp_path / "input.jsonl", orient="records", lines=True)
    model = Table()
    score_file(model, tmp_path / name, ScoreColumns("text", ("industry",)), tmp_path / "o.parquet")
    assert model.asked == [(None, ["Bread"]), (None, ["Call us"])]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("o.csv", "ends in .parquet"),
        ("folder.parquet", "a folder"),
        ("i.parquet", "the input"),
        ("i.parquet/o.parquet", "cannot be written: File exists"),
    ],
)
def test_an_unfit_output_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.parquet").mkdir()
    pd.DataFrame({"text": ["Bread"]}).to_parquet(tmp_path / "i.parquet")
    with pytest.raises(UserError, match=message):
        score_file(Table(), tmp_path / "i.parquet", ScoreColumns("text"), tmp_path / name)


def test_a_failure_leaves_the_former_output(tmp_path: Path) -> None:
    class Broken:
        def score(self, ads, on_progress):  # type: ignore[no-untyped-def]
            raise MemoryError

    (tmp_path / "i.csv").write_text("text\nBread\n")
    score_file(Table(), tmp_path / "i.csv", ScoreColumns("text"), tmp_path / "o.parquet")
    before = (tmp_path / "o.parquet").read_bytes()
    with pytest.raises(MemoryError):
        score_file(Broken(), tmp_path / "i.csv", ScoreColumns("text"), tmp_path / "o.parquet")
    assert (tmp_path / "o.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.csv", "o.parquet"]


def test_a_score_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    class Nan:
        def score(self, ads, on_progress):  # type: ignore[no-untyped-def]
            return [np.full((len(texts), 1), np.nan) for _, texts in ads]

    with pytest.raises(ValueError, match="not finite"):
        scored(tmp_path, "text\nBread\n", ScoreColumns("text"), Nan())
    assert not (tmp_path / "output.parquet").exists()
