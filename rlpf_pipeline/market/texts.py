"""Ad texts of the simulated market: a brief (who advertises what, with which offer) and the variants written for it.

A variant is one to four parts (hook, benefit, call to action, ...) in one of many phrasings. The first variant of an
ad is the advertiser's original, plainer the less experienced they are; the others come in all styles. Every variant
names the brand, or the town and the product, so texts of different advertisers hardly ever coincide. An offer stands
in the original whenever the brief has one: a number that the original lacks would be an invented claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.market.catalogue import TOWNS, Industry, Product
from rlpf_pipeline.market.draws import Draws

WORDS_MIN, WORDS_MAX = 6, 24
OFFER_SHARE = 0.3
OFFER_IN_ALTERNATIVE = 0.5
ATTEMPTS = 400

PHRASINGS: dict[str, tuple[str, ...]] = {
    "plain": (
        "{brand} offers {name} {fact}.",
        "{Name} {fact} at {brand}.",
        "{brand} in {town} has {name} {fact}.",
        "We are {brand} and we offer {name} in {town}.",
        "{Name} {fact}, from {brand} in {town}.",
        "{brand}: {name} {fact}.",
        "New at {brand}: {name} {fact}.",
    ),
    "vague": (
        "Quality service at good prices.",
        "Great products and friendly staff.",
        "We have many years of experience.",
        "A wide range of solutions for every need.",
        "Customer satisfaction is our priority.",
        "Excellent value for everyone.",
        "Professional service and a great selection.",
        "We look forward to serving customers.",
    ),
    "hook": (
        "Tired of {pain}?",
        "Want to {benefit}?",
        "Ready to {benefit}?",
        "Looking for {name} in {town}?",
        "Do you want to {benefit}?",
        "Still putting up with {pain}?",
        "What if you could {benefit}?",
        "Had enough of {pain}?",
        "Is it time for new {name}?",
        "Why put up with {pain}?",
    ),
    "benefit": (
        "Our {name} help {audience} {benefit}.",
        "The easy way to {benefit}.",
        "A simple way for {audience} to {benefit}.",
        "{brand} helps {audience} {benefit}.",
        "{Name} for {audience} who want to {benefit}.",
        "Made for {audience} who want to {benefit}.",
    ),
    "second": (
        "{brand} helps you {benefit}.",
        "Our {name} help you {benefit}.",
        "You deserve {name} {fact}.",
        "Now you can {benefit} with {brand}.",
        "You will love our {name} {fact}.",
        "Your place in {town} for {name} {fact}.",
        "Your neighbours in {town} love our {name}.",
        "If you are in {town}, our {name} help you {benefit}.",
        "Let {brand} help you {benefit}.",
        "With {brand}, you can finally {benefit}.",
    ),
    "relief": (
        "No more {pain}.",
        "Say goodbye to {pain}.",
        "{audience_upper} in {town} know the trouble with {pain}.",
        "Forget {pain}.",
    ),
    "call": (
        "{Action} today.",
        "{Action} at {brand}.",
        "{Action} in {town} today.",
        "{contact} {brand} today.",
        "{contact} {brand} in {town}.",
        "{contact} {brand} this week.",
        "{Action} this week.",
        "{Action} now.",
        "{Action} and {benefit}.",
    ),
    "urgency": ("{urgency}",),
    "social": (
        "Loved by {audience} in {town}.",
        "{audience_upper} in {town} keep coming back.",
        "A favourite with {audience} in {town}.",
        "Our neighbours in {town} swear by us.",
        "{audience_upper} in {town} recommend us.",
    ),
    "hype": (
        "The best {name} in {town}, guaranteed.",
        "Number 1 for {name} in {town}.",
        "Over 500 happy customers in {town}.",
        "Unbeatable {name} at the lowest prices.",
    ),
    "offer": ("Get {offer}.", "{Offer} at {brand}.", "{Offer} this month.", "Now with {offer}.", "{Offer}."),
}

Plan = tuple[str, ...]

ORIGINAL_PLANS: dict[str, tuple[Plan, ...]] = {
    "novice": (("plain",), ("plain", "vague"), ("plain", "vague"), ("plain", "call")),
    "intermediate": (("plain",), ("plain", "vague"), ("plain", "call"), ("plain", "benefit"), ("benefit", "social")),
    "expert": (("plain", "call"), ("hook", "plain"), ("benefit", "call"), ("second", "social"), ("second", "call")),
}

ALTERNATIVE_PLANS: tuple[Plan, ...] = (
    ("plain",),
    ("plain", "vague"),
    ("plain", "benefit"),
    ("plain", "call"),
    ("plain", "urgency", "call"),
    ("plain", "social"),
    ("benefit", "call"),
    ("benefit", "social"),
    ("benefit", "plain", "social"),
    ("benefit", "vague", "vague"),
    ("second",),
    ("second", "call"),
    ("second", "social"),
    ("second", "urgency"),
    ("hook", "second"),
    ("hook", "second", "call"),
    ("hook", "benefit"),
    ("hook", "call"),
    ("hook", "plain"),
    ("hook", "plain", "call"),
    ("hook", "relief", "call"),
    ("relief", "call"),
    ("relief", "second", "call"),
    ("relief", "plain"),
    ("social", "call"),
    ("vague", "social"),
    ("vague", "call"),
    ("hype", "call"),
    ("hook", "hype"),
)


@dataclass(frozen=True)
class Brief:
    """What one ad is about; all its variants share it. `offer` is None where the advertiser makes none."""

    industry: Industry
    product: Product
    brand: str
    town: str
    offer: str | None

    @cached_property
    def names(self) -> dict[str, str | None]:
        """What phrasings call by these names in every text of the ad."""
        return {
            "brand": self.brand,
            "town": self.town,
            "name": self.product.name,
            "Name": capitalised(self.product.name),
            "Action": capitalised(self.product.action),
            "offer": self.offer,
            "Offer": capitalised(self.offer or ""),
        }


def draw_brief(industry: Industry, brand: str, draws: Draws) -> Brief:
    product = draws.choice(industry.products)
    offer = draw_offer(product, draws) if draws.fraction() < OFFER_SHARE else None
    return Brief(industry, product, brand, draws.choice(TOWNS), offer)


def write_variants(brief: Brief, expertise: str, number: int, draws: Draws) -> list[str]:
    """`number` distinct texts of one ad, the advertiser's original first.

    Raises UserError when the brief does not yield so many distinct texts.
    """
    texts = [write_text(brief, ORIGINAL_PLANS[expertise], brief.offer is not None, draws)]
    seen = {texts[0].lower()}
    for _ in range(ATTEMPTS * number):
        if len(texts) == number:
            return texts
        with_offer = brief.offer is not None and draws.fraction() < OFFER_IN_ALTERNATIVE
        text = write_text(brief, ALTERNATIVE_PLANS, with_offer, draws)
        if text.lower() not in seen:
            texts.append(text)
            seen.add(text.lower())
    raise UserError(f"market.variants = {number}: one ad does not yield so many distinct texts. Set it below 100.")


def write_text(brief: Brief, plans: tuple[Plan, ...], with_offer: bool, draws: Draws) -> str:
    """One text of a suitable length that names the brand, or town and product, written after one of `plans`."""
    while True:
        parts = list(draws.choice(plans))
        if with_offer:
            before_call = len(parts) - 1 if parts[-1] == "call" else len(parts)
            parts.insert(before_call, "offer")
        audience = draws.choice(brief.product.audiences)
        text = " ".join(write_part(part, brief, audience, draws) for part in parts)
        named = brief.brand in text or (brief.town in text and brief.product.name.lower() in text.lower())
        if named and WORDS_MIN <= len(text.split()) <= WORDS_MAX and not echoes(text):
            return text


def write_part(part: str, brief: Brief, audience: str, draws: Draws) -> str:
    product = brief.product
    sentence = draws.choice(PHRASINGS[part]).format(
        **brief.names,
        fact=draws.choice(product.facts),
        benefit=draws.choice(product.benefits),
        pain=draws.choice(product.pains),
        audience=audience,
        audience_upper=capitalised(audience),
        contact=draws.choice(brief.industry.contact),
        urgency=draws.choice(brief.industry.urgency),
    )
    exclaims = part in ("call", "offer") and draws.fraction() < 0.3
    return sentence[:-1] + "!" if exclaims else sentence


def draw_offer(product: Product, draws: Draws) -> str:
    percent, dollars = 5 * (2 + draws.below(5)), 5 * (1 + draws.below(9))
    return draws.choice((f"{percent} percent off {product.name}", f"${dollars} off", f"{product.name} from ${dollars}"))


def echoes(text: str) -> bool:
    """Whether four words in a row come twice (product names have three at most): nobody would write that."""
    words = text.lower().replace("?", "").replace(".", "").replace("!", "").split()
    grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return len(set(grams)) < len(grams)


def capitalised(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:]
