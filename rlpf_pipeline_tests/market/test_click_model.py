import numpy as np
import pytest

from rlpf_pipeline.market.click_model import IDIOSYNCRATIC_SCALE, MAX_CTR, PlantedClickModel, features_of, planted_ctr
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.settings import MarketSettings

MARKET = MarketSettings(advertisers=600)
MODEL = PlantedClickModel(MARKET.seed)
ORIGINAL = "Maple Oven offers sourdough loaves baked before dawn. Quality service at good prices."
HUMAN = "Tired of soggy crusts? Maple Oven helps you taste a proper crust again. Order a loaf today."


def systematic(text: str, original: str = ORIGINAL) -> float:
    return float(MODEL.systematic_effects([text], [original])[0])


@pytest.fixture(scope="module")
def human():
    table = simulate_history(MARKET).to_pandas()
    table["original"] = table.groupby("ad_id").text.transform("first")
    return table


def within_ad_sd(table, effects) -> float:
    return float(np.sqrt(table.assign(effect=effects).groupby("ad_id").effect.var().mean()))


def test_human_variants_spread_as_calibrated_and_mostly_by_their_words(human):
    total = within_ad_sd(human, MODEL.log_effects(human.text, human.original))
    learnable = within_ad_sd(human, MODEL.systematic_effects(human.text, human.original))
    assert 0.19 < total < 0.26
    assert learnable**2 > 0.6 * total**2


def test_human_variants_average_the_base_ctr(human):
    assert abs(MODEL.systematic_effects(human.text, human.original).mean()) < 0.02
    assert planted_ctr(human.text, human.original, MARKET) == pytest.approx(0.031, rel=0.08)


def test_originals_are_plainer_than_the_alternatives(human):
    features = [features_of(*row) for row in zip(human.text, human.original, strict=True)]
    style = np.array([f["call_to_action"] + f["question"] + f["second_person"] for f in features])
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
    human_effects = MODEL.systematic_effects(human.text, human.original)
    assert systematic(text) < human_effects.min()


def test_a_number_of_the_original_is_no_invention():
    offer = "Maple Oven offers sourdough loaves. Get 20 percent off."
    text = "Want real bread? Maple Oven gives you 20 percent off sourdough loaves."
    assert features_of(text, offer)["invented_claims"] == 0.0
    assert features_of(text, ORIGINAL)["invented_claims"] > 0.5
    assert systematic(text, offer) > systematic(text.replace("20", "50"), offer)


def test_idiosyncratic_effects_are_student_t_with_three_degrees_of_freedom():
    scaled = MODEL.idiosyncratic_effects([f"text {i}" for i in range(40_000)]) / IDIOSYNCRATIC_SCALE
    # Quantiles of Student-t, nu = 3, from printed tables: P(T < 0.765) = .75, P(T < 2.353) = .95, P(T < 4.541) = .99.
    for quantile, probability in ((0.0, 0.5), (0.765, 0.75), (2.353, 0.95), (4.541, 0.99)):
        standard_error = np.sqrt(probability * (1 - probability) / len(scaled))
        assert abs((scaled < quantile).mean() - probability) < 4 * standard_error


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
