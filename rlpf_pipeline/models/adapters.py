"""Model folders: what a trained model is on disk, and how it comes back.

    model.json                 which base, which adapters in which order
    adapters/<name>/           LoRA weights (safetensors) and configuration, applied and merged in order; of an
                               ensemble of reward models, each a member's
    head.safetensors           reward models: the score head
    trunk/                     reward models, after full fine-tuning: all weights below the head, and no adapters
    tokenizer files, manifest.json

AdLlama's folder holds imitation v2's adapter and, on top of the merged result, its own: it is complete without the
folder it was trained from.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from rlpf_pipeline.artifacts import require_as_written
from rlpf_pipeline.digests import LOADED, model_digest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.lora_linear import ADAPTER, fuse_lora
from rlpf_pipeline.models.rms_norm import fuse_norms
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, faults_of

CARD = "model.json"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class ModelCard(BaseModel):
    kind: str
    base: BaseModelSettings
    base_digest: str | None = Field(None, description="of a base that is a folder: `digests.model_digest`")
    adapters: list[str]
    ensemble: bool = Field(False, description="adapters stand side by side, instead of one on top of the other")
    max_context_tokens: int | None = None
    max_text_tokens: int | None = None
    objective: Literal["pairwise", "pointwise"] = Field("pairwise", description="reward models: what the scores are")
    heads: int = 1
    pooling: Literal["last", "mean"] = "last"
    layers: int | None = None
    sentence_layer: int | None = None
    best_of: int | None = Field(None, description="texts it draws for each one it keeps (training/best_of.py)")
    tokenizer: str | None = Field(None, description="fingerprint of the tokenizer it was trained with")

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """Raises UserError where the folder is none of a model."""
        path = folder / CARD
        if not path.is_file():
            raise UserError(f"{folder} is no model folder: it has no {CARD}. Train one first (`rlpf run`).")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise UserError(f"{path} does not describe a model ({faults_of(error)}). Copy its folder anew.") from error


def require_undamaged(folder: Path) -> None:
    """Raise UserError unless a model folder's weights, configurations and tokenizer are what was written.

    The card may be edited: it says where the base is.
    """
    require_as_written(folder, lambda file: file.suffix in LOADED and file.name != CARD)


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Turns what the loading of a model folder's weights fails of into a UserError: a file that is missing or damaged,
    where no manifest told so, or weights of another shape than the card's base has."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and "size" not in str(error):
            raise
        reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise UserError(
            f"The weights in {folder} cannot be loaded: {reason}. Either the folder is incomplete or damaged: copy it "
            f"anew. Or {folder / CARD} was changed, or names another base than the one that was trained on: correct it."
        ) from error


def require_same_base(folder: Path, card: ModelCard) -> None:
    """Raises UserError where the base's folder holds another model than the one that was trained on."""
    if card.base_digest and model_digest(card.base.name) not in (None, card.base_digest):
        raise UserError(
            f"{card.base.name} is not the base that {folder} was trained on: its files have changed since. Restore "
            f"them, name their copy as base in {folder / CARD}, or train the model again."
        )


def attach_lora(model: PreTrainedModel, lora: LoraSettings) -> PeftModel:
    """Freeze `model` and put a fresh LoRA adapter (zero at the start) on its linear layers."""
    return _adapted(model, lora_config(model, lora))


def sibling(model: PeftModel) -> PeftModel:
    """The same frozen base, its weights shared, under a fresh adapter of the same shape."""
    return _adapted(plain_copy(model), copy.deepcopy(model.peft_config[ADAPTER]))


def _adapted(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    fuse_lora(adapted)
    fuse_norms(adapted)
    return adapted


def lora_config(model: PreTrainedModel, lora: LoraSettings) -> LoraConfig:
    """Which layers of `model` the settings adapt, and how."""
    name, layers = _named_layers(model)
    top = min(lora.top_layers or len(layers), len(layers))
    kinds = (nn.Linear, Conv1D)
    linear = {path.rpartition(".")[2] for path, module in layers.named_modules() if isinstance(module, kinds)}
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=_in_order(linear),
        layers_to_transform=list(range(len(layers) - top, len(layers))),
        layers_pattern=name,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in layers.modules()),
    )


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What an optimiser moves: the adapter's weights, or all where everything is trained."""
    return [p for p in model.parameters() if p.requires_grad]


def is_finite(model: nn.Module) -> bool:
    """Whether all that was trained is numbers."""
    return all(bool(parameter.isfinite().all()) for parameter in trained_parameters(model))


def layers_of(model: PreTrainedModel | PeftModel) -> nn.ModuleList:
    return _named_layers(model.get_base_model() if isinstance(model, PeftModel) else model)[1]


def _named_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The model's list of layers, whatever its architecture calls it: `layers` in a Llama, `layer` in a BERT."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return path.rpartition(".")[2], module
    raise UserError(f"{type(model).__name__} has no list of layers to put LoRA adapters on. Choose another base model.")


def _in_order(names: Iterable[str]) -> list[str]:
    """A Llama's linear layers in their usual order, anything else by name."""
    return sorted(names, key=lambda name: (TARGETS.index(name) if name in TARGETS else len(TARGETS), name))


def save_model(
    folder: Path, card: ModelCard, model: PeftModel, tokenizer: PreTrainedTokenizerBase, below: Path | None = None
) -> None:
    """Write a model folder: the adapters of the folder `below` first, then `model`'s own under the card's last name."""
    for name in card.adapters[:-1]:
        if below is None:
            raise ValueError(f"adapter '{name}' needs the folder it comes from")
        shutil.copytree(below / "adapters" / name, folder / "adapters" / name)
    _save_adapter(model, folder / "adapters" / card.adapters[-1], card.base)
    save_card(folder, card, tokenizer)


def save_card(folder: Path, card: ModelCard, tokenizer: PreTrainedTokenizerBase) -> None:
    """What a model folder holds beside weights."""
    tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(card.model_dump_json(indent=2), encoding="utf-8")


def _save_adapter(model: PeftModel, folder: Path, base: BaseModelSettings) -> None:
    # peft would record the cache's folder as the base; the name is what means something elsewhere.
    adapter = model.peft_config[ADAPTER]
    adapter.base_model_name_or_path = base.name
    # peft holds the targets as a set, whose order would reach the file: equal recipes must give equal bytes.
    adapter.target_modules = _in_order(adapter.target_modules)
    # Embeddings are never trained; without saying so, peft asks the hub whether they were.
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def merge_adapters(model: PreTrainedModel, folder: Path, card: ModelCard) -> PreTrainedModel:
    """Apply the folder's adapters one on top of the other; the result is a plain model. Raises UserError where one is
    missing, damaged or does not fit."""
    for name in card.adapters:
        with fitting(folder):
            adapted = PeftModel.from_pretrained(
                model, folder / "adapters" / name, use_safetensors=True, autocast_adapter_dtype=False
            )
        model = adapted.merge_and_unload()
    return model.eval()


def load_policy(folder: Path, cache: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A trained policy or imitation model, adapters merged, with its tokenizer."""
    card = ModelCard.read(folder)
    if card.kind != "policy":
        raise UserError(f"{folder} holds a {card.kind} model; a policy or imitation model is needed here.")
    require_undamaged(folder)
    require_same_base(folder, card)
    return merge_adapters(load_causal_lm(card.base, cache), folder, card), load_tokenizer(card.base, cache)


def plain_copy(model: PeftModel, apart: Container[int] = ()) -> PreTrainedModel:
    """An adapted model without its adapter. All weights are shared with it but those whose id is in `apart`."""
    plain = model.get_base_model()
    shared = {id(p): p for p in plain.parameters() if id(p) not in apart}
    copied: PreTrainedModel = copy.deepcopy(plain, shared)  # type: ignore[arg-type]
    for name, _ in list(_lora_layers(copied)):
        _replace_by_linear(copied, name)
    vars(copied).pop("peft_config", None)
    return copied.eval()


class MergedCopy:
    """A plain copy of an adapted model for fast decoding; `refresh` brings the adapter's present state into it.

    Only the adapted weights are copied: embeddings and frozen layers are shared with the original.
    """

    def __init__(self, model: PeftModel) -> None:
        layers = dict(_lora_layers(model.get_base_model()))
        self.model = plain_copy(model, {id(layer.base_layer.weight) for layer in layers.values()})
        self._pairs = [(layer, self.model.get_submodule(name)) for name, layer in layers.items()]
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        for layer, linear in self._pairs:
            linear.weight.copy_(layer.base_layer.weight + layer.get_delta_weight(ADAPTER))


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _replace_by_linear(model: nn.Module, name: str) -> None:
    parent, _, attribute = name.rpartition(".")
    linear: nn.Linear = model.get_submodule(name).base_layer  # type: ignore[assignment]
    linear.requires_grad_(False)
    setattr(model.get_submodule(parent), attribute, linear)
