"""A checkpoint comes back as it was saved, for its own recipe, or says that it is damaged."""

from pathlib import Path

import pytest
import torch

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.training.checkpoints import Checkpoint, Checkpoints

SAVED = Checkpoint({"weights": torch.arange(6.0)}, {"step": 3, "rate": 0.1})


def test_a_checkpoint_comes_back_for_its_own_recipe_only(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "checkpoint", "this").save(SAVED)
    found = Checkpoints(tmp_path / "checkpoint", "this").load()
    assert found is not None
    torch.testing.assert_close(found.tensors, SAVED.tensors, rtol=0, atol=0)
    assert found.state == SAVED.state
    assert Checkpoints(tmp_path / "checkpoint", "another").load() is None
    assert Checkpoints(tmp_path / "nowhere", "this").load() is None


@pytest.mark.parametrize("killed_at", [".building", ".checkpoint"])
def test_what_a_kill_while_saving_leaves_is_among_what_goes_with_the_finished_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """A job removes what it kept under `.<name of the output>.`; the name is that of the folder that is renamed when
    the kill comes."""

    def killed(folder: Path, target: Path) -> Path:
        if folder.name.endswith(killed_at):
            raise KeyboardInterrupt
        return rename(folder, target)

    rename = Path.rename
    checkpoints = Checkpoints(tmp_path / ".model.checkpoint", "this")
    checkpoints.save(SAVED)
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(SAVED)
    monkeypatch.undo()
    assert {*tmp_path.iterdir()} == {*tmp_path.glob(".model.*/")}
    assert checkpoints.load() is not None


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, name: str, left: int) -> None:
    """After a power cut a file may be there and empty, though its folder was renamed to its place."""
    checkpoints = Checkpoints(tmp_path / "checkpoint", "this")
    checkpoints.save(SAVED)
    file = tmp_path / "checkpoint" / name
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(UserError, match=r"checkpoint is damaged.*Remove it"):
        checkpoints.load()


@pytest.mark.parametrize(("name", "content"), [("tensors.safetensors", None), ("state.json", b"{}")])
def test_a_checkpoint_that_lacks_something_says_what_to_do(tmp_path: Path, name: str, content: bytes | None) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoint", "this")
    checkpoints.save(SAVED)
    (tmp_path / "checkpoint" / name).unlink()
    if content is not None:
        (tmp_path / "checkpoint" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint is damaged.*Remove it"):
        checkpoints.load()
