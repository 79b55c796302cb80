import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    GPT2Config,
    GPT2Model,
    GPTJConfig,
    GPTJModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from rlpf_pipeline import sentence_embeddings
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models import reward_model
from rlpf_pipeline.models.base import load_causal_lm, load_trunk
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.packing import Group, Packed, encode
from rlpf_pipeline.models.reward_folders import load_reward_model, save_reward_model
from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import train_reward_model
from rlpf_pipeline_tests.conftest import TINY, needs_minilm
from rlpf_pipeline_tests.training.reward_ads import WORDS, make_ads

ADS = [("bread", ["buy bread", "fresh bread here for you"]), (None, ["taste", "taste every day", "buy now"])]


def make(base: BaseModelSettings, cache: Path, **settings: object) -> RewardModel:
    torch.manual_seed(0)
    reward = RewardSettings(heads=2, lora=LoraSettings(top_layers=1), **settings)  # type: ignore[arg-type]
    return new_reward_model(base, reward, reward.lora, "reward_model", cache)


def test_a_model_of_the_lower_layers_scores_from_their_states_and_reloads_to_the_same(
    cache: Path, tmp_path: Path
) -> None:
    model = make(TINY, cache, layers=1, pooling="mean")
    perturb(model)
    scores = model.score(ADS)
    assert len(model.trunk.get_base_model().layers) == 1
    save_reward_model(model, tmp_path / "reward")
    for one, other in zip(scores, load_reward_model(tmp_path / "reward", cache).score(ADS), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_lower_layers_states_are_those_of_the_whole_base(cache: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    whole, lower = load_trunk(TINY, cache), load_trunk(TINY, cache, layers=1)
    with torch.no_grad():
        expected = whole.norm(whole(input_ids=ids, output_hidden_states=True).hidden_states[1])
        assert torch.equal(lower(input_ids=ids).last_hidden_state, expected)


def test_more_layers_than_the_base_has_are_refused(bert: BaseModelSettings, cache: Path) -> None:
    with pytest.raises(UserError, match=r"has 4 layers.*layers=9"):
        make(TINY, cache, layers=9)
    with pytest.raises(UserError, match="no plain stack"):
        make(bert, cache, layers=1)


def perturb(model: RewardModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def make_base(folder: Path, kind: type[PreTrainedModel], config: PretrainedConfig) -> BaseModelSettings:
    """A base of random weights, as a folder with a tokenizer of whole words; its padding is 1."""
    words = {token: i for i, token in enumerate(["[UNK]", "[PAD]", "[CLS]", "[SEP]", *WORDS, "for", "o", "p", "q"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(3)
    kind(config).save_pretrained(folder)
    return BaseModelSettings(name=str(folder), dtype="float32")


ENCODER = {
    "vocab_size": 20,
    "pad_token_id": 1,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
GPT = {
    "vocab_size": 20,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "n_positions": 66,  # [CLS], 16 of a context, 48 of a text, [SEP]
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSettings:
    return make_base(tmp_path_factory.mktemp("bert"), BertModel, BertConfig(**ENCODER))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSettings:
    return make_base(tmp_path_factory.mktemp("roberta"), RobertaModel, RobertaConfig(**ENCODER))


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSettings:
    config = DebertaV2Config(
        **ENCODER,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=4,
        position_biased_input=False,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        type_vocab_size=0,
    )
    return make_base(tmp_path_factory.mktemp("deberta"), DebertaV2Model, config)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSettings:
    return make_base(tmp_path_factory.mktemp("gpt2"), GPT2Model, GPT2Config(**GPT, pad_token_id=1))


@pytest.fixture(scope="module")
def gptj(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSettings:
    """A causal model with an attention of its own."""
    return make_base(tmp_path_factory.mktemp("gptj"), GPTJModel, GPTJConfig(**GPT, rotary_dim=8))


@pytest.fixture(params=["bert", "roberta", "deberta", "gpt2", "gptj"])
def other(request: pytest.FixtureRequest) -> BaseModelSettings:
    """A base that is no Llama."""
    base: BaseModelSettings = request.getfixturevalue(request.param)
    return base


def test_what_is_learned_does_not_hang_on_dropout(other: BaseModelSettings, cache: Path) -> None:
    """They have it by default: another split of a batch, or a run taken up again, would learn otherwise."""
    model = make(other, cache)
    perturb(model)
    packed = model.pack([Group([5, 6], [[7, 8, 9], [8, 5]])])
    with torch.no_grad():
        judged, learned = (encode(model.train(mode).trunk, packed) for mode in (False, True))
    assert torch.equal(judged, learned)


def test_any_base_reads_each_text_with_its_context(other: BaseModelSettings, cache: Path) -> None:
    model = make(other, cache)
    perturb(model)
    assert model.shares_prefix == isinstance(model.trunk.get_base_model(), GPT2Model)
    together = model.score(ADS)
    alone = [np.concatenate([model.score([(context, [text])])[0] for text in texts]) for context, texts in ADS]
    for scores, own in zip(together, alone, strict=True):
        np.testing.assert_allclose(scores, own, rtol=0, atol=1e-5)
    # its own computation, without any of ours: [CLS] context text [SEP]
    context, text = ADS[0][0], ADS[0][1][1]
    ids = model.tokenizer(f"[CLS] {context} {text} [SEP]", add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        state = model.trunk(input_ids=ids).last_hidden_state[0, -1]
        expected = model.head(state) / np.sqrt(32)
    np.testing.assert_allclose(together[0][1], expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BertModel, BertConfig(**ENCODER, max_position_embeddings=16)),
        (RobertaModel, RobertaConfig(**ENCODER, max_position_embeddings=18)),  # the padding's 2 come first
        (GPT2Model, GPT2Config(**(GPT | {"n_positions": 16}), pad_token_id=1)),
    ],
)
def test_texts_longer_than_a_base_has_positions_are_refused(
    kind: type[PreTrainedModel], config: PretrainedConfig, cache: Path, tmp_path: Path
) -> None:
    base, long = make_base(tmp_path, kind, config), [("bread " * 20, ["bread " * 20])]
    fits, exceeds = (RewardSettings(max_context_tokens=4, max_text_tokens=tokens) for tokens in (10, 11))
    new_reward_model(base, fits, fits.lora, "reward_model", cache).score(long)  # [CLS], 4, 10, [SEP]
    with pytest.raises(UserError, match=r"reads 16 tokens, and 17 are asked of it"):
        new_reward_model(base, exceeds, exceeds.lora, "reward_model", cache)


def test_any_base_trains_and_reloads(other: BaseModelSettings, cache: Path, tmp_path: Path) -> None:
    model = make(other, cache)
    settings = RewardSettings(heads=2, epochs=12, tokens_per_batch=100, learning_rate=5e-3, head_learning_rate=5e-2)
    with StateFile(tmp_path / "states", 10**8) as states:
        figures = train_reward_model(model, make_ads(40, 1), settings, 1, Reporter("test"), states)
    assert figures["train_accuracy"] > 0.7
    before = model.score(ADS)
    save_reward_model(model, tmp_path / "model")
    after = load_reward_model(tmp_path / "model", cache).score(ADS)
    np.testing.assert_allclose(np.concatenate(after), np.concatenate(before), rtol=0, atol=1e-4)


def test_mean_pooling_is_the_mean_over_the_text_and_its_end(cache: Path) -> None:
    model = make(TINY, cache, pooling="mean")
    group = model.tokenize([("Bread", ["Buy it!"])])[0]
    packed = model.pack([group])
    hidden = torch.randn(1, packed.input_ids.shape[1], 64)
    expected = hidden[0, len(group.prefix) :].mean(0)
    torch.testing.assert_close(model.pool(hidden, packed)[0], expected)


@needs_minilm
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_sentence_state_stands_beside_the_trunks(bert: BaseModelSettings, cache: Path, bidirectional: bool) -> None:
    model = make(bert if bidirectional else TINY, cache, sentence_layer=2, pooling="mean")
    perturb(model)
    packed = model.pack([group._replace(features=None) for group in model.tokenize(ADS)])
    tokenizer, minilm = sentence_embeddings.encoder(6)
    with torch.no_grad():
        trunk = model.pool(encode(model.trunk, packed), packed)
        sentence = [
            minilm(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[2][0].mean(0)
            for _, texts in ADS
            for text in texts
        ]
        expected = model.head(torch.cat([trunk, torch.stack(sentence)], 1)) / np.sqrt(trunk.shape[1] + 384)
    np.testing.assert_allclose(np.concatenate(model.score(ADS)), expected.numpy(), rtol=0, atol=1e-5)


@needs_minilm
def test_heads_on_both_states_are_solved_and_reload(cache: Path, tmp_path: Path) -> None:
    model = make(TINY, cache, sentence_layer=2, pooling="mean")
    settings = RewardSettings(heads=2, epochs=1, tokens_per_batch=200, solve_heads=True)
    with StateFile(tmp_path / "states", 10**8) as states:
        train_reward_model(model, make_ads(40, 1), settings, 1, Reporter("test"), states, make_ads(20, 2))
    assert model.head.weight[:, 64:].abs().max() > 0
    save_reward_model(model, tmp_path / "model")
    after = load_reward_model(tmp_path / "model", cache).score(ADS)
    np.testing.assert_allclose(np.concatenate(after), np.concatenate(model.score(ADS)), rtol=0, atol=1e-5)


def test_another_tokenizer_is_refused(cache: Path, tmp_path: Path) -> None:
    save_reward_model(make(TINY, cache), tmp_path)
    load_reward_model(tmp_path, cache)
    file = tmp_path / "tokenizer.json"
    rules = json.loads(file.read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:-5]
    file.write_text(json.dumps(rules))
    with pytest.raises(UserError, match="not the one this reward model was trained with"):
        load_reward_model(tmp_path, cache)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_ad_of_many_texts_is_scored_within_the_budget(
    bert: BaseModelSettings, cache: Path, monkeypatch: pytest.MonkeyPatch, bidirectional: bool
) -> None:
    model = make(bert if bidirectional else TINY, cache)
    perturb(model)
    ads = [("bread here", [f"{one} {two} {three}" for one in WORDS for two in WORDS for three in WORDS[:2]]), *ADS]
    alone = [np.concatenate([model.score([(context, [text])])[0] for text in texts]) for context, texts in ads]
    encoded: list[int] = []

    def spy(trunk: torch.nn.Module, packed: Packed) -> torch.Tensor:
        encoded.append(packed.used)
        return encode(trunk, packed)

    monkeypatch.setattr(reward_model, "SCORING_TOKENS", 256)
    monkeypatch.setattr(reward_model, "encode", spy)
    together = model.score(ads)
    assert max(encoded) <= 256
    for scores, own in zip(together, alone, strict=True):
        np.testing.assert_allclose(scores, own, rtol=0, atol=3e-5)
    assert model.score([]) == []


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_text_is_refused(cache: Path, missing: object) -> None:
    with pytest.raises(UserError, match="Ad number 1 holds a text or a context that is missing"):
        make(TINY, cache).score([("Bread", ["Buy it!"]), (None, ["Bread", missing])])  # type: ignore[list-item]


def test_a_trunk_that_mixes_texts_of_a_row_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixing(trunk: torch.nn.Module, packed: object) -> torch.Tensor:
        states: torch.Tensor = trunk(input_ids=packed.input_ids).last_hidden_state  # type: ignore[attr-defined]
        return states.cumsum(1)

    monkeypatch.setattr(reward_model, "encode", mixing)
    with pytest.raises(UserError, match="does not give packed texts the states that they have alone"):
        make(TINY, cache)


def test_a_trunk_whose_positions_are_counted_wrongly_is_refused(
    roberta: BaseModelSettings, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpf_pipeline.models.reward_model.first_position", lambda trunk: 0)
    with pytest.raises(UserError, match="does not give packed texts the states that they have alone"):
        make(roberta, cache)


def test_a_base_of_a_kind_that_cannot_be_used_is_refused(deberta: BaseModelSettings, cache: Path) -> None:
    with pytest.raises(UserError, match=r"is of a kind that cannot be used here: .* A policy is a causal"):
        load_causal_lm(deberta, cache)
