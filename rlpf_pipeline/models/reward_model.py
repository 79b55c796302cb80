"""The Bradley-Terry performance reward model: a trunk with LoRA, and a linear score at each text's last token.

score(text | context) is a log odds: sigmoid(score_left - score_right) = P(CTR_left > CTR_right). Only differences
within one ad mean something; its zero is the mean score of the training texts. Several heads on the one trunk, each
trained on its own bootstrap sample of the ads, say how sure a score is: their mean is the score, their standard
deviation the spread (Osband et al. 2016).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import ModelCard, attach_lora, merge_adapters, save_model
from rlpf_pipeline.models.base import load_tokenizer, load_trunk
from rlpf_pipeline.models.packing import Group, Packed, batches_by_tokens, encode, pack
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings

SCORING_TOKENS = 4096
TOKENIZER_BATCH = 10_000


class RewardModel(nn.Module):
    """Scores of texts behind a shared context.

    The head starts at zero, so that every score is 0 and the first loss is log 2; hidden states are scaled by
    1/sqrt(hidden size) before it, so that one learning rate suits every width.
    """

    def __init__(
        self,
        trunk: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        card: ModelCard,
    ) -> None:
        super().__init__()
        self.trunk, self.tokenizer, self.card = trunk, tokenizer, card
        hidden = trunk.config.hidden_size
        self.head = nn.Linear(hidden, card.heads, bias=False, device=trunk.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("center", torch.zeros(card.heads, device=trunk.device))

    def forward(self, packed: Packed) -> Tensor:
        """Scores (texts, heads) in the order of the batch, float32."""
        hidden = encode(self.trunk, packed)
        last = hidden[packed.last()].float()
        return self.head(last) * hidden.shape[-1] ** -0.5 - self.center

    def tokenize(self, ads: Sequence[tuple[str | None, Sequence[str]]]) -> list[Group]:
        """Token ids of each (context, texts): [start, context…], and [text…, end] a text, cut at the card's limits.

        Texts and contexts that occur several times are tokenised once.
        """
        end, longest, card = self.tokenizer.eos_token_id, self.card.max_text_tokens, self.card
        start = end if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id
        ids = token_ids(self.tokenizer, [text for context, texts in ads for text in (context or "", *texts)])
        return [
            Group(
                [start, *ids[context or ""][: card.max_context_tokens]], [[*ids[text][:longest], end] for text in texts]
            )
            for context, texts in ads
        ]

    @torch.inference_mode()
    def score(self, ads: Sequence[tuple[str | None, Sequence[str]]]) -> list[np.ndarray]:
        """Scores of each (context, texts), in the order given: float32 (texts, heads) per ad.

        The mean over heads is the score (`reward_mean`), the standard deviation over heads its `reward_spread`.
        """
        self.eval()
        groups = self.tokenize(ads)
        scores = [np.empty((0, self.card.heads), np.float32)] * len(groups)
        for batch in batches_by_tokens([group.length for group in groups], SCORING_TOKENS):
            packed = pack([groups[i] for i in batch], self.tokenizer.pad_token_id, self.head.weight.device)
            ends = np.cumsum([len(groups[i].texts) for i in batch])
            for i, own in zip(batch, np.split(self(packed).cpu().numpy(), ends[:-1]), strict=True):
                scores[i] = own
        return scores


def new_reward_model(
    base: BaseModelSettings, settings: RewardSettings, lora: LoraSettings, name: str, cache: Path
) -> RewardModel:
    """An untrained reward model on the base model, ready for training."""
    card = ModelCard(
        kind="reward",
        base=base,
        adapters=[name],
        max_context_tokens=settings.max_context_tokens,
        max_text_tokens=settings.max_text_tokens,
        heads=settings.heads,
    )
    return RewardModel(attach_lora(load_trunk(base, cache), lora), load_tokenizer(base, cache), card)


def save_reward_model(model: RewardModel, folder: Path) -> None:
    save_model(folder, model.card, model.trunk, model.tokenizer)
    head = {"weight": model.head.weight.detach().contiguous().cpu(), "center": model.center.cpu()}
    save_file(head, folder / "head.safetensors")


def load_reward_model(folder: Path, cache: Path) -> RewardModel:
    """A trained reward model, adapters merged; it scores as the trained one did."""
    card = ModelCard.read(folder)
    if card.kind != "reward":
        raise UserError(f"{folder} holds a {card.kind} model; a reward model is needed here.")
    model = RewardModel(
        merge_adapters(load_trunk(card.base, cache), folder, card), load_tokenizer(card.base, cache), card
    )
    head = load_file(folder / "head.safetensors")
    with torch.no_grad():
        model.head.weight.copy_(head["weight"])
        model.center.copy_(head["center"])
    return model.eval()


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, list[int]]:
    """Token ids of each distinct text, without special tokens, in batches."""
    distinct = list(dict.fromkeys(texts))
    ids: dict[str, list[int]] = {}
    for place in range(0, len(distinct), TOKENIZER_BATCH):
        batch = distinct[place : place + TOKENIZER_BATCH]
        ids |= zip(
            batch, tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"], strict=True
        )
    return ids
