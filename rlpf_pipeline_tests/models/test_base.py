"""Base models in the cache."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlpf_pipeline.models.base import _in_cache


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
