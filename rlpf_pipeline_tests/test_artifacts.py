import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
import torch

from rlpf_pipeline import artifacts
from rlpf_pipeline.artifacts import Recipe, explained, is_current, publish, read_manifest, whole
from rlpf_pipeline.errors import UserError


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


def test_an_artifact_says_by_what_versions_it_was_made_and_stays_current_under_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(stage="a")
    build(tmp_path / "a", recipe, "one")
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None
    assert manifest.versions["duckdb"] == duckdb.__version__
    assert manifest.versions["torch"] == torch.__version__
    monkeypatch.setattr(artifacts, "versions", lambda: {"duckdb": "99"})
    assert is_current(tmp_path / "a", recipe)


def test_a_failure_leaves_the_former_artifact_untouched(tmp_path: Path) -> None:
    build(tmp_path / "a", Recipe(stage="a"), "one")
    with pytest.raises(IsADirectoryError), publish(tmp_path / "a", Recipe(stage="b")) as (building, _):
        building.write_text("a step that fails")
    assert (tmp_path / "a" / "data.txt").read_text() == "one"
    assert read_manifest(tmp_path / "a").recipe.stage == "a"


@pytest.mark.parametrize(
    "words",
    [
        "[Errno 122] Disk quota exceeded: 'part-00001.parquet'",
        "(sqlite3.OperationalError) database or disk is full",
        "[Errno 2] No usable temporary directory found in ['/tmp', '/var/tmp']",
        "Out of Memory Error: failed to offload data block of size 256.0 KiB (90.0 MiB/90.0 MiB used). This limit was "
        "set by the 'max_temp_directory_size' setting.",
    ],
)
def test_a_full_disk_is_known_by_what_any_library_says(tmp_path: Path, words: str) -> None:
    with pytest.raises(UserError, match="is full"), explained(tmp_path, ()):
        raise RuntimeError(words)


def test_a_kill_between_the_renames_of_a_publication_loses_neither_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def killed(building: Path, folder: Path) -> Path:
        if building.name.endswith(".building"):
            raise Killed
        return rename(building, folder)

    rename = Path.rename
    build(tmp_path / "a", Recipe(stage="a"), "one")
    for _ in range(2):
        monkeypatch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            build(tmp_path / "a", Recipe(stage="b"), "two")
        monkeypatch.undo()
        assert read_manifest(tmp_path / "a").recipe.stage == "a"
        assert (whole(tmp_path / "a") / "data.txt").read_text() == "one"
    build(tmp_path / "a", Recipe(stage="b"), "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (whole(tmp_path / "a") / "data.txt").read_text() == "two"


def test_all_of_an_artifact_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave empty files under the final name."""

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path))
        assert not (tmp_path / "a").exists()

    flushed: list[Path] = []
    monkeypatch.setattr(os, "fsync", fsync)
    with publish(tmp_path / "a", Recipe(stage="a")) as (building, _):
        (building / "deep").mkdir()
        (building / "deep/data.txt").write_text("one")
    names = {".", "deep", "deep/data.txt", "manifest.json"}
    assert {Path(".a.building", name) for name in names} <= set(flushed)


def test_what_was_made_read_only_is_replaced_as_often_as_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with without_roots_rights():
        for text in ("one", "two", "three"):
            with publish(Path("a"), Recipe(stage="a")) as (building, _):
                (building / "deep").mkdir()
                (building / "deep/data.txt").write_text(text)
            assert [*Path().iterdir()] == [Path("a")]
            assert Path("a/deep/data.txt").read_text() == text
            for folder in (Path("a"), Path("a/deep")):
                folder.chmod(0o500)


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """In the working folder, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    artifacts.versions()
    os.chown(".", nobody, nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_link_in_a_folder_s_place_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept.txt").write_text("kept")
    (tmp_path / "a").symlink_to("elsewhere")
    for text in ("one", "two"):
        build(tmp_path / "a", Recipe(stage="a"), text)
        assert (tmp_path / "a/data.txt").read_text() == text
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "data.txt", "manifest.json", "elsewhere", "kept.txt"}


@pytest.mark.parametrize("content", [b"", b'{"recipe": {"sta', b"[]", b"\xff{}"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    recipe = Recipe(stage="a")
    build(tmp_path / "a", recipe, "one")
    (tmp_path / "a/manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a/manifest\.json is damaged"):
        is_current(tmp_path / "a", recipe)


def test_equal_files_have_equal_digests(tmp_path: Path) -> None:
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        build(tmp_path / name, Recipe(stage=name), text)
    a, b, c = (read_manifest(tmp_path / name).digest for name in "abc")
    assert a == b != c
