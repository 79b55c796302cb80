from pathlib import Path

import pytest

from rlpf_pipeline.artifacts import Recipe, is_current, publish, read_manifest


def build(folder: Path, recipe: Recipe, text: str) -> None:
    with publish(folder, recipe) as (building, metrics):
        (building / "data.txt").write_text(text)
        metrics["length"] = len(text)


def test_an_artifact_is_current_for_its_own_recipe_only(tmp_path: Path) -> None:
    recipe = Recipe(stage="a", settings={"seed": 1}, inputs={"b": "x"})
    build(tmp_path / "a", recipe, "one")
    assert is_current(tmp_path / "a", recipe)
    assert not is_current(tmp_path / "a", recipe.model_copy(update={"inputs": {"b": "y"}}))
    (tmp_path / "a" / "data.txt").unlink()
    assert not is_current(tmp_path / "a", recipe)


def test_a_failure_leaves_the_former_artifact_untouched(tmp_path: Path) -> None:
    build(tmp_path / "a", Recipe(stage="a"), "one")
    with pytest.raises(IsADirectoryError), publish(tmp_path / "a", Recipe(stage="b")) as (building, _):
        building.write_text("a step that fails")
    assert (tmp_path / "a" / "data.txt").read_text() == "one"
    assert read_manifest(tmp_path / "a").recipe.stage == "a"


def test_equal_files_have_equal_digests(tmp_path: Path) -> None:
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        build(tmp_path / name, Recipe(stage=name), text)
    a, b, c = (read_manifest(tmp_path / name).digest for name in "abc")
    assert a == b != c
