"""Base models in the cache."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import tokenization_utils_base

from rlpf_pipeline.models.base import _in_cache, load_tokenizer
from rlpf_pipeline_tests.conftest import TINY


def test_ranks_that_want_a_base_at_once_make_it_once(tmp_path: Path) -> None:
    """Each on its own, they emptied the folder that another one was filling."""
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "config.json").write_text("{}")
        time.sleep(0.2)
        (folder / "model.safetensors").write_text("weights")

    with ThreadPoolExecutor(4) as ranks:
        found = list(ranks.map(lambda _: _in_cache(tmp_path / "cache" / "tiny", make), range(4)))
    assert len(made) == 1
    assert set(found) == {tmp_path / "cache" / "tiny"}
    assert sorted(path.name for path in found[0].iterdir()) == ["config.json", "model.safetensors"]


def test_a_saved_tokenizer_does_not_tell_whether_a_hub_was_in_reach(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_offline in (False, True):
        monkeypatch.setattr(tokenization_utils_base, "is_offline_mode", lambda value=is_offline: value)
        load_tokenizer(TINY, cache).save_pretrained(tmp_path / str(is_offline))
    one, other = ((tmp_path / name / "tokenizer_config.json").read_text() for name in ("False", "True"))
    assert one == other
