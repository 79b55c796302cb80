import json
import re
from pathlib import Path

import numpy as np
import pytest

from rlpf_pipeline.evaluation.plots import pictures
from rlpf_pipeline.evaluation.reward_model import Band, Evaluation, compare
from rlpf_pipeline.evaluation.write import comparison, write_evaluation
from rlpf_pipeline_tests.evaluation.splits import split_of


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    ads = [
        [
            ("word " * int(rng.integers(3, 9)) + "?" * int(rng.random() < 0.5), 1000, int(rng.integers(5, 40)))
            for _ in "abc"
        ]
        for _ in range(30)
    ]
    split = split_of(*ads)
    split = split._replace(pairs=split.pairs.assign(p_value=np.where(split.pairs.index % 3 == 0, 0.01, 0.5)))
    reward = rng.normal(size=90)
    return compare(split, {"reward_model": reward, "tfidf": -reward, "longer_wins": reward, "chance": np.zeros(90)})


def test_everything_is_written_and_readable(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path)
    pictures = {path.stem for path in tmp_path.glob("*.svg")}
    assert pictures == {
        "accuracy_by_model", "accuracy_by_effect_and_impressions", "reliability", "reward_by_length",
        "reward_by_style", "selection_lift_by_model",
    }  # fmt: skip
    assert not pictures & {*evaluation.conditions, *evaluation.models["reward_model"]}
    for picture in pictures:
        assert "NaN" not in (tmp_path / f"{picture}.svg").read_text()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["models"]["reward_model"] == evaluation.models["reward_model"]
    assert figures["by_length"][0]["voices"]["pairs"] > 0
    assert figures["gains"]["chance"]["gain"] == pytest.approx(evaluation.gains["chance"].gain)


def test_the_same_evaluation_gives_the_same_bytes(evaluation: Evaluation, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_evaluation(evaluation, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_table_has_a_row_per_model_and_dashes_for_what_is_unknown(evaluation: Evaluation) -> None:
    rows = [line for line in comparison(evaluation).splitlines() if line.startswith("|")]
    assert [re.split(r" \| ", row)[0] for row in rows[2:]] == [
        "| reward model", "| TF-IDF difference, logistic", "| longer wins", "| chance"
    ]  # fmt: skip
    assert len({row.count("|") for row in rows}) == 1
    assert " – " in rows[4]


def test_a_split_of_one_pair_is_drawn_too(tmp_path: Path) -> None:
    split = split_of([("ab", 100, 1), ("cd", 100, 2)])
    write_evaluation(compare(split, {"reward_model": np.array([0.0, 1.0])}), tmp_path)
    assert not (tmp_path / "reward_by_length.svg").exists()
    assert "1 pairs" in (tmp_path / "comparison.md").read_text()


def test_bands_of_any_width_have_places_of_their_own_and_hold_their_intervals(evaluation: Evaluation) -> None:
    bands = [Band(low, 2 * low, 20, low * 1000, 0.1, 0.6) for low in (1e-4, 3e-4, 1e-3)]
    (panel, _) = pictures(evaluation._replace(by_effect=bands))["accuracy_by_effect_and_impressions"]["hconcat"]
    rows = panel["layer"][1]["data"]["values"]
    assert len({row["name"] for row in rows}) == 3
    ((lowest, highest),) = [
        layer["encoding"]["y"]["scale"]["domain"] for layer in panel["layer"] if "scale" in layer["encoding"]["y"]
    ]
    assert all(lowest <= row[end] <= highest for row in rows for end in ("low", "high"))
