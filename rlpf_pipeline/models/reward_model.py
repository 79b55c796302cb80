"""The performance reward model: a trunk with LoRA, and linear score heads on one state a text.

score(text | context) is a log odds: sigmoid(score_left - score_right) = P(CTR_left > CTR_right). Only differences
within one ad mean something; its zero is the mean score of some training texts. Several heads on the one trunk, each
trained on its own bootstrap sample of the ads, say how sure a score is: their mean is the score, their standard
deviation the spread (Osband et al. 2016). A model trained pointwise scores log CTR instead of log odds.

Causal trunks encode the texts of an ad behind one shared context; bidirectional encoders, and trunks that take no mask
but that of padding, each text with its context.
With `sentence_layer`, a frozen sentence encoder's state of the text stands beside the trunk's: it knows what a sentence
says, where the trunk knows what comes next (docs/reward-model.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.digests import model_digest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models import block_attention
from rlpf_pipeline.models.adapters import ModelCard, attach_lora
from rlpf_pipeline.models.base import load_tokenizer, load_trunk
from rlpf_pipeline.models.packing import Group, Packed, batches_by_tokens, encode, pack
from rlpf_pipeline.models.read_places import skip_unread
from rlpf_pipeline.models.tokens import fingerprint, token_ids
from rlpf_pipeline.sentence_embeddings import STATE_WIDTH, states
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings

Ads = Sequence[tuple[str | None, Sequence[str]]]
"""Contexts and texts of ads."""
SCORING_TOKENS = 4096
BASE_BESIDE_SENTENCES = 0.5
"""Size of a weight on the base's state beside one on the sentence encoder's, before any ad is seen."""


class RewardModel(nn.Module):
    """Scores of texts behind a shared context.

    The heads start at zero, so that every score is 0 and the first loss is log 2; states are scaled by
    1/sqrt(their width) before them, so that one learning rate suits every width.
    """

    def __init__(self, trunk: nn.Module, tokenizer: PreTrainedTokenizerBase, card: ModelCard) -> None:
        super().__init__()
        self.trunk, self.tokenizer, self.card = trunk, tokenizer, card
        width = trunk.config.hidden_size + (STATE_WIDTH if card.sentence_layer else 0)
        self.head = nn.Linear(width, card.heads, bias=False, device=trunk.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("center", torch.zeros(card.heads, device=trunk.device))
        self.masks_padding_only = trunk.config._attn_implementation == "eager"
        self.shares_prefix = is_causal(trunk) and not self.masks_padding_only
        self.first_position = first_position(trunk)
        self.reads_last = card.pooling == "last"
        if self.reads_last:
            skip_unread(trunk)
        if self.shares_prefix:
            trunk.set_attn_implementation(block_attention.NAME)

    def forward(self, packed: Packed) -> Tensor:
        """Scores (texts, heads) in the order of the batch, in the heads' precision."""
        return self.read_out(encode(self.trunk, packed), packed)

    def read_out(self, hidden: Tensor, packed: Packed) -> Tensor:
        """Scores (texts, heads) from hidden states (rows, length, hidden) at the top of the trunk."""
        text = self.pool(hidden, packed)
        return self.head(text) * text.shape[-1] ** -0.5 - self.center

    def pool(self, hidden: Tensor, packed: Packed) -> Tensor:
        """One state a text, in the heads' precision: its last token's, or the mean over its tokens, and its features
        beside it. (texts, width)."""
        if self.card.pooling == "last":
            state = hidden[packed.last()].to(self.head.weight.dtype)
        else:
            tokens = hidden[packed.row, packed.position].to(self.head.weight.dtype)
            total = tokens.new_zeros(len(packed.lengths), tokens.shape[1]).index_add(0, packed.text, tokens)
            state = total / packed.lengths[:, None]
        return state if packed.features is None else torch.cat([state, packed.features.to(state)], dim=1)

    @property
    def log_odds(self) -> bool:
        """Whether a difference of scores is the log odds of being the better text; of a pointwise model it is not."""
        return self.card.objective == "pairwise"

    def head_prior(self) -> Tensor:
        """How large a head's weight on each state is thought to be beside the others, float32 (width,)."""
        prior = torch.ones_like(self.head.weight[0])
        if self.card.sentence_layer:
            prior[:-STATE_WIDTH] = BASE_BESIDE_SENTENCES
        return prior

    def tokenize(self, ads: Ads) -> list[Group]:
        """Token ids of each (context, texts): [start, context…], and [text…, end] a text, cut at the card's limits.

        With `sentence_layer`, the sentence encoder's states of the texts are their features. Texts and contexts that
        occur several times are tokenised once. Raises UserError for a text that is missing.
        """
        end, longest, card = self.tokenizer.eos_token_id, self.card.max_text_tokens, self.card
        start = end if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id
        for number, (context, texts) in enumerate(ads):
            if not all(isinstance(text, str) for text in (context or "", *texts)):
                raise UserError(
                    f"Ad number {number} holds a text or a context that is missing or no text: {(context, *texts)!r}. "
                    "Leave such rows out, or give a context of None."
                )
        ids = token_ids(self.tokenizer, [text for context, texts in ads for text in (context or "", *texts)])
        known = card.sentence_layer and states([text for _, texts in ads for text in texts], card.sentence_layer)
        return [
            Group(
                [start, *ids[context or ""][: card.max_context_tokens]],
                [[*ids[text][:longest], end] for text in texts],
                np.stack([known[text] for text in texts]) if known else None,
            )
            for context, texts in ads
        ]

    def cut_share(self, texts: Sequence[str]) -> float:
        """Share of the distinct texts that are longer than the card's limit, and lose their ends."""
        ids = token_ids(self.tokenizer, texts).values()
        return float(np.mean([len(own) > len(own[: self.card.max_text_tokens]) for own in ids]))

    def pieces(self, group: Group, tokens: int) -> list[Group]:
        """The group as its trunk wants it, in groups of at most `tokens` tokens (one text at least); texts stay in
        order, and each gets the states that it gets in the whole."""
        return group.within(tokens) if self.shares_prefix else group.apart()

    def pack(self, groups: Sequence[Group]) -> Packed:
        """A batch on the model's device, as its trunk wants it; texts stay in order."""
        if not self.shares_prefix:
            groups = [one for group in groups for one in group.apart()]
        packed = pack(
            groups,
            self.tokenizer.pad_token_id,
            self.head.weight.device,
            bidirectional=not self.shares_prefix,
            one_row=self.shares_prefix,
            own_rows=self.masks_padding_only,
        )
        packed = packed._replace(position_ids=packed.position_ids + self.first_position)
        return packed.reading_last() if self.reads_last else packed

    @torch.inference_mode()
    def score(self, ads: Ads, on_progress: Callable[[int], None] = lambda done: None) -> list[np.ndarray]:
        """Scores of each (context, texts), in the order given: float32 (texts, heads) per ad.

        The mean over heads is the score (`reward_mean`), the standard deviation over heads its `reward_spread`.
        on_progress: called with the texts scored so far. Raises UserError where a score is not finite.
        """
        self.eval()
        groups = [own for group in self.tokenize(ads) for own in self.pieces(group, SCORING_TOKENS)]
        scores, done = [np.empty((0, self.card.heads), np.float32)], 0
        for batch in batches_by_tokens([group.length for group in groups], SCORING_TOKENS):
            scores.append(self(self.pack([groups[i] for i in batch])).float().cpu().numpy())
            if not np.isfinite(scores[-1]).all():
                raise UserError(
                    f"A reward model on '{self.card.base.name}' gives scores that are not finite. Train it again, with "
                    "a lower reward.learning_rate and reward.head_learning_rate; in float16 or on damaged base weights "
                    "nothing helps but another base."
                )
            done += len(scores[-1])
            on_progress(done)
        ends = np.cumsum([len(texts) for _, texts in ads])
        return np.split(np.concatenate(scores), ends[:-1]) if len(ads) else []


@torch.no_grad()
def is_causal(trunk: nn.Module) -> bool:
    """Whether a token's state is the same whatever follows it; asked of the trunk itself, with four tokens."""
    first, second = (
        trunk(input_ids=torch.tensor([ids], device=trunk.device)).last_hidden_state[0, :3]
        for ids in ([5, 6, 7, 8], [5, 6, 7, 9])
    )
    return torch.equal(first, second)


def first_position(trunk: nn.Module) -> int:
    """Where the trunk counts positions from: 0, but behind the padding's own in RoBERTa and its kin."""
    for name, module in trunk.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def new_reward_model(
    base: BaseModelSettings, settings: RewardSettings, lora: LoraSettings | None, name: str, cache: Path
) -> RewardModel:
    """An untrained reward model on the base model, ready for training: an adapter called `name`, or all of the base."""
    tokenizer = load_tokenizer(base, cache)
    card = ModelCard(
        kind="reward",
        base=base,
        base_digest=model_digest(base.name),
        adapters=[name] if lora else [],
        max_context_tokens=settings.max_context_tokens,
        max_text_tokens=settings.max_text_tokens,
        objective=settings.objective,
        heads=settings.heads,
        pooling=settings.pooling,
        layers=settings.layers,
        sentence_layer=settings.sentence_layer,
        tokenizer=fingerprint(tokenizer),
    )
    trunk = load_trunk(base, cache, card.layers)
    model = RewardModel(attach_lora(trunk, lora) if lora else trunk, tokenizer, card)
    if settings.gradient_checkpointing:
        trunk.gradient_checkpointing_enable({"use_reentrant": False})
        # The backward pass computes layers again by themselves, as if everything were read.
        model.reads_last = False
    check_packing(model)
    check_longest(model)
    return model


@torch.no_grad()
def check_packing(model: RewardModel) -> None:
    """Raises UserError where texts packed together do not get the states that the trunk, called plainly, gives them."""
    groups = [Group([5, 6], [[7, 8, 9], [8, 5]]), Group([9], [[6, 5]])]
    together = model.pool(encode(model.trunk, model.pack(groups)), model.pack(groups))
    singles = [one for group in groups for one in group.apart()]
    alone = torch.cat([model.pool(plain_states(model.trunk, one), model.pack([one])) for one in singles])
    # bfloat16 keeps 8 bits; a trunk that mixes texts is off by about the states themselves.
    if (together - alone).norm() > 0.05 * alone.norm():
        raise UserError(
            f"Base model '{model.card.base.name}' does not give packed texts the states that they have alone (it "
            "ignores block attention masks, or counts positions in a way of its own), so its scores would depend on "
            "their neighbours. Choose a Llama-like or a BERT-like model."
        )


@torch.no_grad()
def check_longest(model: RewardModel) -> None:
    """Raises UserError where the trunk has no positions for the longest text that the card allows behind a context."""
    card, positions = model.card, getattr(model.trunk.config, "max_position_embeddings", math.inf)
    longest = Group([5] * (1 + card.max_context_tokens), [[5] * (card.max_text_tokens + 1)])
    if model.first_position + longest.length <= positions:
        return
    try:  # positions that are relative have no end
        plain_states(model.trunk, longest)
    except (IndexError, RuntimeError) as error:
        raise UserError(
            f"Base model '{card.base.name}' reads {positions - model.first_position} tokens, and {longest.length} are "
            "asked of it: reward.max_context_tokens + reward.max_text_tokens + 2. Lower these."
        ) from error


def plain_states(trunk: nn.Module, group: Group) -> Tensor:
    """Hidden states (1, length, hidden) of a group of one text, from its tokens and nothing else."""
    ids = torch.tensor([[*group.prefix, *group.texts[0]]], device=trunk.device)
    states: Tensor = trunk(input_ids=ids).last_hidden_state
    return states
