from pathlib import Path

import pytest

from rlpf_pipeline import digests
from rlpf_pipeline.digests import model_digest, source_digest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package where a imports b imports c (inside a function), nothing imports d, and everything imports settings."""
    folder = tmp_path / "package"
    (folder / "deep").mkdir(parents=True)
    for name, text in {
        "a.py": "from package.deep import b\nimport json\nfrom package.settings import x\n",
        "deep/b.py": "def f():\n    import package.c\n",
        "c.py": "",
        "d.py": "",
        "settings.py": "x = 1\n",
        "data/words.txt": "one",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(digests, "PACKAGE", folder)
    return folder


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("a.py", True),
        ("deep/b.py", True),
        ("c.py", True),
        ("data/words.txt", True),
        ("d.py", False),
        ("settings.py", False),
    ],
)
def test_code_changes_with_what_a_module_imports_and_with_nothing_else(
    package: Path, edited: str, changes: bool
) -> None:
    before = source_digest("a.py", "data")
    (package / edited).write_text("# another text\n" + (package / edited).read_text())
    assert (source_digest("a.py", "data") != before) is changes


def test_a_source_that_is_not_there_is_an_error(package: Path) -> None:
    with pytest.raises(FileNotFoundError):
        source_digest("nowhere.py")


def test_a_folder_with_the_name_of_a_base_that_is_there_by_itself_is_not_that_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert model_digest("own") is not None
    assert model_digest("tiny") is None
