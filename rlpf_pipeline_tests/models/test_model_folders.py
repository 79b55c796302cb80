import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlpf_pipeline.artifacts import Recipe, publish, read_manifest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import TARGETS, MergedCopy, ModelCard, attach_lora, load_policy, save_model
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.reward_folders import load_reward_model, require_same_scores, save_reward_model
from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings
from rlpf_pipeline_tests.conftest import TINY

ADS = [("Bookshop", ["Buy a book!", "A new book for you?"]), (None, ["Bread.", "Fresh bread", "Bread, every day."])]


def perturb(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def reward_model(cache: Path) -> RewardModel:
    return new_reward_model(TINY, RewardSettings(), LoraSettings(top_layers=2), "reward_model", cache)


def test_an_untrained_reward_model_knows_nothing(cache: Path) -> None:
    assert [scores.tolist() for scores in reward_model(cache).score(ADS)] == [[[0.0] * 5] * 2, [[0.0] * 5] * 3]


def test_a_reloaded_reward_model_scores_the_same(cache: Path, tmp_path: Path) -> None:
    model = reward_model(cache)
    perturb(model)
    save_reward_model(model, tmp_path)
    before, after = model.score(ADS), load_reward_model(tmp_path, cache).score(ADS)
    assert before[1].shape == (3, 5)
    assert before[1].dtype == np.float32
    assert len(np.unique(before[1])) == 15
    np.testing.assert_allclose(np.concatenate(after), np.concatenate(before), rtol=0, atol=1e-5)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


def test_a_fully_tuned_reward_model_keeps_its_whole_trunk(cache: Path, tmp_path: Path) -> None:
    settings = RewardSettings(layers=2, lora=None)
    model = new_reward_model(TINY, settings, settings.lora, "reward_model", cache)
    perturb(model)
    save_reward_model(model, tmp_path)
    np.testing.assert_array_equal(
        np.concatenate(load_reward_model(tmp_path, cache / "empty").score(ADS)), np.concatenate(model.score(ADS))
    )
    assert {path.name for path in tmp_path.iterdir()} >= {"trunk", "head.safetensors", "tokenizer.json"}
    assert not (tmp_path / "adapters").exists()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


def test_a_score_does_not_depend_on_its_neighbours(cache: Path) -> None:
    model = reward_model(cache)
    perturb(model)
    (alone,) = model.score([(None, ["Bread."])])
    np.testing.assert_allclose(alone[0], model.score(ADS)[1][0], rtol=0, atol=1e-6)


def test_a_text_that_occurs_often_is_tokenised_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = reward_model(cache), []
    tokenizer = model.tokenizer

    def counting(texts: list[str], **options: object) -> object:
        seen.extend(texts)
        return tokenizer(texts, **options)

    counting.eos_token_id, counting.bos_token_id = tokenizer.eos_token_id, tokenizer.bos_token_id
    model.tokenizer = counting
    groups = model.tokenize([*ADS, *ADS, ("Bookshop", ["Bread."])])
    assert sorted(seen) == sorted({"", "Bookshop", *(text for _, texts in ADS for text in texts)})
    assert groups[:2] == groups[2:4]
    assert groups[4].texts[0] == groups[1].texts[0] == [*tokenizer("Bread.")["input_ids"], tokenizer.eos_token_id]


def test_only_the_chosen_top_layers_are_trained(cache: Path) -> None:
    model = attach_lora(load_causal_lm(TINY, cache), LoraSettings(top_layers=1))
    trained = {name.split("layers.")[1].split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"3"}


def test_a_folder_that_scores_otherwise_than_the_model_it_was_saved_from_is_a_fault(
    cache: Path, tmp_path: Path
) -> None:
    model = reward_model(cache)
    perturb(model)
    save_reward_model(model, tmp_path)
    require_same_scores(tmp_path, model, ADS, cache)
    with torch.no_grad():
        model.head.weight[0] *= 1.5
    with pytest.raises(RuntimeError, match="does not score as"):
        require_same_scores(tmp_path, model, ADS, cache)


def test_stacked_adapters_reload_to_the_policy_that_was_saved(cache: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TINY, cache)
    ids = torch.tensor([tokenizer("Fresh bread for you")["input_ids"]])
    card = ModelCard(kind="policy", base=TINY, adapters=["imitation_v2"])
    first = attach_lora(load_causal_lm(TINY, cache), LoraSettings())
    perturb(first)
    save_model(tmp_path / "imitation_v2", card, first, tokenizer)

    reference, _ = load_policy(tmp_path / "imitation_v2", cache)
    second = attach_lora(reference, LoraSettings())
    perturb(second)
    card = card.model_copy(update={"adapters": ["imitation_v2", "adllama"]})
    save_model(tmp_path / "adllama", card, second, tokenizer, below=tmp_path / "imitation_v2")

    reloaded, _ = load_policy(tmp_path / "adllama", cache)
    torch.testing.assert_close(reloaded(ids).logits, second(ids).logits, rtol=0, atol=1e-4)


def test_the_adapter_file_does_not_depend_on_the_order_of_a_set(cache: Path, tmp_path: Path) -> None:
    card = ModelCard(kind="policy", base=TINY, adapters=["imitation_v2"])
    save_model(tmp_path, card, attach_lora(load_causal_lm(TINY, cache), LoraSettings()), load_tokenizer(TINY, cache))
    config = json.loads((tmp_path / "adapters" / "imitation_v2" / "adapter_config.json").read_text())
    assert config["target_modules"] == TARGETS


def test_the_merged_copy_follows_the_adapter_and_shares_what_is_frozen(cache: Path) -> None:
    model = attach_lora(load_causal_lm(TINY, cache), LoraSettings(top_layers=2)).eval()
    copy = MergedCopy(model)
    perturb(model)
    ids = torch.tensor([[5, 9, 4]])
    assert not torch.allclose(copy.model(ids).logits, model(ids).logits, atol=1e-3)
    copy.refresh()
    torch.testing.assert_close(copy.model(ids).logits, model(ids).logits, rtol=0, atol=1e-4)
    embeddings = [m.get_input_embeddings().weight.data_ptr() for m in (copy.model, model)]
    assert embeddings[0] == embeddings[1]


def test_the_pad_token_is_never_the_end_of_text(cache: Path) -> None:
    tokenizer = load_tokenizer(TINY, cache)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_a_base_whose_weights_were_replaced_is_refused(cache: Path, tmp_path: Path) -> None:
    load_causal_lm(TINY, cache)
    base = BaseModelSettings(name=str(shutil.copytree(cache / "tiny", tmp_path / "base")), dtype="float32")
    model = new_reward_model(base, RewardSettings(), LoraSettings(), "reward_model", cache)
    save_reward_model(model, tmp_path / "reward_model")
    policy = ModelCard(kind="policy", base=base, base_digest=model.card.base_digest, adapters=["imitation_v2"])
    adapted = attach_lora(load_causal_lm(base, cache), LoraSettings())
    save_model(tmp_path / "imitation_v2", policy, adapted, load_tokenizer(base, cache))

    loads = {"reward_model": load_reward_model, "imitation_v2": load_policy}
    for name, load in loads.items():
        load(tmp_path / name, cache)
    weights = tmp_path / "base" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for name, load in loads.items():
        with pytest.raises(UserError, match=f"is not the base that .*{name} was trained on"):
            load(tmp_path / name, cache)


def test_a_missing_base_model_is_explained(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not be loaded"):
        load_causal_lm(BaseModelSettings(name=str(tmp_path / "nowhere")), cache)


def test_a_policy_is_no_reward_model(cache: Path, tmp_path: Path) -> None:
    card = ModelCard(kind="policy", base=TINY, adapters=[])
    (tmp_path / "model.json").write_text(card.model_dump_json())
    with pytest.raises(UserError, match="a reward model is needed"):
        load_reward_model(tmp_path, cache)


@pytest.fixture(scope="module")
def published(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "reward_model"
    with publish(folder, Recipe(stage="reward_model")) as (building, _):
        save_reward_model(reward_model(cache), building)
    return folder


DAMAGES = {
    "empty": lambda content: b"",
    "broken off": lambda content: content[: len(content) // 2],
    "a byte changed": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "other JSON": lambda content: b"[]",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_model_folder_is_refused_whichever_file_it_is(
    published: Path, cache: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A changed byte of weights would be scored with, and anything else end in some library's traceback."""
    folder = shutil.copytree(published, tmp_path / "reward_model")
    load_reward_model(folder, cache)
    for name in set(read_manifest(folder).files) - {"model.json"}:
        file = folder / name
        content = file.read_bytes()
        file.write_bytes(damage(content))
        with pytest.raises(UserError, match=f"{name} is not what was written"):
            load_reward_model(folder, cache)
        file.unlink()
        with pytest.raises(UserError, match=f"{name} is missing"):
            load_reward_model(folder, cache)
        file.write_bytes(content)


def test_a_model_card_may_be_edited_but_not_damaged(published: Path, cache: Path, tmp_path: Path) -> None:
    """It says where the base is, which may have moved."""
    folder = shutil.copytree(published, tmp_path / "reward_model")
    card = ModelCard.read(folder)
    moved = card.model_copy(update={"base": BaseModelSettings(name=str(cache / "tiny"))})
    (folder / "model.json").write_text(moved.model_dump_json())
    load_reward_model(folder, cache)
    for damage in DAMAGES.values():
        (folder / "model.json").write_bytes(damage(b"\xff" + card.model_dump_json().encode()))
        with pytest.raises(UserError, match=r"model\.json does not describe a model"):
            load_reward_model(folder, cache)


@pytest.mark.parametrize("pattern", ["head.safetensors", "adapters/*/adapter_model.safetensors"])
def test_a_damaged_folder_without_a_manifest_is_refused_too(
    published: Path, cache: Path, tmp_path: Path, pattern: str
) -> None:
    """A copy that was broken off."""
    folder = shutil.copytree(published, tmp_path / "reward_model")
    (folder / "manifest.json").unlink()
    (weights,) = folder.glob(pattern)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"reward_model cannot be loaded: .*copy it anew"):
        load_reward_model(folder, cache)
    weights.unlink()
    with pytest.raises(UserError, match=r"reward_model cannot be loaded: .*copy it anew"):
        load_reward_model(folder, cache)


def test_a_card_that_names_another_base_or_other_heads_is_refused(published: Path, cache: Path, tmp_path: Path) -> None:
    folder, base = shutil.copytree(published, tmp_path / "reward_model"), tmp_path / "larger"
    shutil.copytree(cache / "tiny", base)
    config = LlamaConfig.from_pretrained(base)
    config.intermediate_size *= 2
    LlamaForCausalLM(config).save_pretrained(base)
    card = ModelCard.read(folder)
    for changed in ({"base": BaseModelSettings(name=str(base))}, {"heads": card.heads + 1}):
        (folder / "model.json").write_text(card.model_copy(update=changed).model_dump_json())
        with pytest.raises(UserError, match=r"cannot be loaded: .*size.*names another base than the one"):
            load_reward_model(folder, cache)
