"""Reward models on disk: written, read, and several of them joined.

Members of one recipe, trained with different seeds, become an ensemble (`models/reward_ensemble.py`) or one model of
their mean weights (WARM, Ramé et al. 2024), which costs what one costs: the mean of the products B A is the product of
the stacked factors, an adapter of as many times the rank. After full fine-tuning it is the mean of all weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import (
    CARD,
    ModelCard,
    fitting,
    merge_adapters,
    require_same_base,
    require_undamaged,
    save_card,
    save_model,
)
from rlpf_pipeline.models.base import load_tokenizer, load_trunk
from rlpf_pipeline.models.reward_ensemble import RewardEnsemble
from rlpf_pipeline.models.reward_model import Ads, RewardModel
from rlpf_pipeline.models.tokens import fingerprint

HEAD, WEIGHTS, CONFIG = "head.safetensors", "adapter_model.safetensors", "adapter_config.json"
TRUNK = "trunk"


def save_reward_model(model: RewardModel, folder: Path) -> None:
    """The adapter and the head; after full fine-tuning the whole trunk instead of the adapter."""
    if model.card.adapters:
        save_model(folder, model.card, model.trunk, model.tokenizer)
    else:
        model.trunk.save_pretrained(folder / TRUNK)
        save_card(folder, model.card, model.tokenizer)
    head = {"weight": model.head.weight.detach().contiguous().cpu(), "center": model.center.cpu()}
    save_file(head, folder / HEAD)


def load_reward_model(folder: Path, cache: Path) -> RewardModel:
    """A trained reward model, its adapter merged, or an ensemble; it scores as the trained one did.

    Raises UserError where the folder holds something else or is damaged, or its tokenizer is not the one it was trained
    with.
    """
    card = ModelCard.read(folder)
    if card.kind != "reward":
        raise UserError(f"{folder} holds a {card.kind} model; a reward model is needed here.")
    require_undamaged(folder)
    tokenizer = load_tokenizer(card.base.model_copy(update={"name": str(folder)}), cache)
    if card.tokenizer not in (None, fingerprint(tokenizer)):
        raise UserError(
            f"The tokenizer in {folder} is not the one this reward model was trained with: it would read other texts "
            "than it learned from, and its scores would mean nothing. Restore the folder's tokenizer files, or train "
            "the reward model again."
        )
    if card.adapters:
        require_same_base(folder, card)
    whole = card.base.model_copy(update={"name": str(folder / TRUNK)})
    trunk = load_trunk(card.base, cache, card.layers) if card.adapters else load_trunk(whole, cache)
    if card.ensemble:
        model: RewardModel = RewardEnsemble(_side_by_side(trunk, folder, card), tokenizer, card)
    else:
        model = RewardModel(merge_adapters(trunk, folder, card), tokenizer, card)
    with torch.no_grad(), fitting(folder):
        head = load_file(folder / HEAD)
        model.head.weight.copy_(head["weight"])
        model.center.copy_(head["center"])
    return model.eval()


def require_same_scores(folder: Path, model: RewardModel, ads: Ads, cache: Path) -> None:
    """Raises RuntimeError unless the folder's model scores the ads as `model` does, but for the rounding of merging."""
    reloaded = load_reward_model(folder, cache).to(model.head.weight.device)
    kept, found = (np.concatenate(own.score(ads)) for own in (model, reloaded))
    if np.linalg.norm(found - kept) > 0.05 * np.linalg.norm(kept - kept.mean(axis=0)):
        raise RuntimeError(f"The reward model in {folder} does not score as the one that was trained. This is a fault.")


def _side_by_side(trunk: PreTrainedModel, folder: Path, card: ModelCard) -> PeftModel:
    """`trunk` with all of the folder's adapters, of which one at a time is active."""
    first, *others = card.adapters
    options = {"use_safetensors": True, "autocast_adapter_dtype": False}
    with fitting(folder):
        model = PeftModel.from_pretrained(trunk, folder / "adapters" / first, adapter_name=first, **options)
        for name in others:
            model.load_adapter(folder / "adapters" / name, adapter_name=name, **options)
    return model


def join_members(members: Sequence[Path], folder: Path) -> None:
    """Write the ensemble of the reward models in `members` to `folder`."""
    cards = [ModelCard.read(member) for member in members]
    names = [f"{card.adapters[0]}-{number + 1}" for number, card in enumerate(cards)]
    _copy_tokenizer(members[0], folder)
    for member, card, name in zip(members, cards, names, strict=True):
        shutil.copytree(member / "adapters" / card.adapters[0], folder / "adapters" / name)
    heads = [load_file(member / HEAD) for member in members]
    save_file({name: torch.cat([head[name] for head in heads]) for name in heads[0]}, folder / HEAD)
    joined = cards[0].model_copy(
        update={"adapters": names, "ensemble": True, "heads": sum(card.heads for card in cards)}
    )
    (folder / CARD).write_text(joined.model_dump_json(indent=2), encoding="utf-8")


def average_members(members: Sequence[Path], folder: Path) -> None:
    """Write the reward model of the members' mean weights to `folder`; of a single member, that one."""
    _copy_tokenizer(members[0], folder)
    adapters = ModelCard.read(members[0]).adapters
    if adapters:
        _average_adapters([member / "adapters" / adapters[0] for member in members], folder / "adapters" / adapters[0])
    else:
        _average_trunks([member / TRUNK for member in members], folder / TRUNK)
    save_file(_mean([member / HEAD for member in members]), folder / HEAD)
    shutil.copy(members[0] / CARD, folder)


def _average_adapters(members: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    tensors = [load_file(member / WEIGHTS) for member in members]
    stacked = {key: _stacked(key, [own[key] for own in tensors]) for key in tensors[0]}
    save_file(stacked, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((members[0] / CONFIG).read_text())
    config["r"] *= len(members)
    (folder / CONFIG).write_text(json.dumps(config, indent=2))


def _average_trunks(members: Sequence[Path], folder: Path) -> None:
    """File by file, since the weights of a large base are several."""
    shutil.copytree(members[0], folder)
    for file in folder.glob("*.safetensors"):
        save_file(_mean([member / file.name for member in members]), file, metadata={"format": "pt"})


def _mean(files: Sequence[Path]) -> dict[str, Tensor]:
    """Means of tensors by name, in their own precision."""
    tensors = [load_file(file) for file in files]
    return {
        name: torch.stack([own[name].float() for own in tensors]).mean(0).to(first)
        for name, first in tensors[0].items()
    }


def _stacked(name: str, factors: Sequence[Tensor]) -> Tensor:
    """A of (rank, in) one below the other, B of (out, rank) side by side: their product is the sum of the members'.

    LoRA divides by the rank, which is as many times larger: what applies is the mean.
    """
    return torch.cat(list(factors), dim=0 if "lora_A" in name else 1)


def _copy_tokenizer(member: Path, folder: Path) -> None:
    weights = shutil.ignore_patterns("adapters", TRUNK, CARD, "manifest.json", HEAD)
    shutil.copytree(member, folder, ignore=weights, dirs_exist_ok=True)
