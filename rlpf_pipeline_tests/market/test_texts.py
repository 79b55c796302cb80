import numpy as np
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.market.catalogue import INDUSTRIES
from rlpf_pipeline.market.draws import Draws
from rlpf_pipeline.market.texts import WORDS_MAX, WORDS_MIN, Brief, write_variants

EVERY_BRIEF = [
    Brief(industry, product, "Maple Lane", "Ashford", offer)
    for industry in INDUSTRIES
    for product in industry.products
    for offer in (None, f"20 percent off {product.name}")
]


def test_there_are_eight_industries_of_six_products():
    assert len(INDUSTRIES) >= 8
    assert all(len(industry.products) >= 6 for industry in INDUSTRIES)


@pytest.mark.parametrize("expertise", ["novice", "intermediate", "expert"])
def test_every_brief_yields_distinct_texts_of_fitting_length_that_name_the_advertiser(expertise):
    draws = Draws(np.random.default_rng(0))
    for brief in EVERY_BRIEF:
        texts = write_variants(brief, expertise, 5, draws)
        assert len({text.lower() for text in texts}) == 5
        assert all(WORDS_MIN <= len(text.split()) <= WORDS_MAX for text in texts)
        assert all(brief.brand in text or brief.town in text for text in texts)
        assert not any("{" in text or "None" in text or "  " in text for text in texts)


def test_the_original_states_the_offer_and_only_some_variants_repeat_it():
    draws = Draws(np.random.default_rng(0))
    texts = [write_variants(brief, "novice", 4, draws) for brief in EVERY_BRIEF if brief.offer]
    assert all("20 percent" in ad[0] for ad in texts)
    repeated = np.mean(["20 percent" in text for ad in texts for text in ad[1:]])
    assert 0.3 < repeated < 0.7


def test_more_variants_than_a_brief_can_give_are_refused(monkeypatch):
    monkeypatch.setattr("rlpf_pipeline.market.texts.write_text", lambda *_: "Maple Lane offers sourdough loaves.")
    with pytest.raises(UserError, match=r"market\.variants"):
        write_variants(EVERY_BRIEF[0], "novice", 2, Draws(np.random.default_rng(0)))
