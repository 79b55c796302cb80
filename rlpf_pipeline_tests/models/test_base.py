"""Base models in the cache."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import tokenization_utils_base

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.base import _in_cache, load_causal_lm, load_tokenizer, resolve
from rlpf_pipeline.settings import BaseModelSettings
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
    assert sorted(path.name for path in found[0].iterdir()) == ["config.json", "manifest.json", "model.safetensors"]


@pytest.mark.parametrize("damage", ["gone", "cut", "emptied"])
def test_a_damaged_base_in_the_cache_is_made_anew(damage: str, tmp_path: Path) -> None:
    load_tokenizer(TINY, tmp_path)
    folder = tmp_path / "tiny"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage == "gone":
        (folder / "tokenizer.json").unlink()
    elif damage == "cut":
        (folder / "model.safetensors").write_bytes(before["model.safetensors"][:5000])
    else:
        for path in folder.iterdir():
            path.unlink()
    load_causal_lm(TINY, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_base_of_the_user_s_own_that_is_cut_short_is_told_in_words(cache: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(resolve(TINY, cache), tmp_path / "ours")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match="ours' could not be loaded"):
        load_causal_lm(BaseModelSettings(name=str(folder)), cache)


def test_a_base_of_a_hub_that_does_not_answer_is_asked_for_once(tmp_path: Path) -> None:
    """Its library asks six times for each of several files."""
    load = (
        "from pathlib import Path; from rlpf_pipeline.models.base import load_tokenizer; "
        "from rlpf_pipeline.settings import BaseModelSettings; "
        "load_tokenizer(BaseModelSettings(name='nobody/nothing'), Path('cache'))"
    )
    surroundings = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, env=surroundings)
    assert done.stderr.startswith("Base model 'nobody/nothing' is no folder here; asking the hub for it")
    assert "UserError: Base model 'nobody/nothing' could not be loaded" in done.stderr
    assert "Retrying" not in done.stderr


def test_a_saved_tokenizer_does_not_tell_whether_a_hub_was_in_reach(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_offline in (False, True):
        monkeypatch.setattr(tokenization_utils_base, "is_offline_mode", lambda value=is_offline: value)
        load_tokenizer(TINY, cache).save_pretrained(tmp_path / str(is_offline))
    one, other = ((tmp_path / name / "tokenizer_config.json").read_text() for name in ("False", "True"))
    assert one == other
