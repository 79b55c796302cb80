"""What the planted click truth and the simulated advertisers see in a text: plain functions of words and sentences.

Each takes many texts, read by `reading.py`, and returns a number of a stated range for each of them, (texts,); most
saturate, so that more of a good thing does not go on paying. `originals` are the words of each text's original, one by
one, numbered as the text's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rlpf_pipeline.market.reading import WORD, Floats, Integers, Pieces, characters, distinct_of


def word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


STOP_WORDS = word_set(
    "a an the and or but of in on at to for from with by is are be was it this that we our us i you your yours they "
    "their who what if no not more any has have had do does can could will would so as than then now up out new all "
    "without while into over off before after when how my me its here there still just only about every each"
)
DANGLING = word_set("a an the and or but of in at to for from with by our your my is are")
CALL_VERBS = word_set(
    "order call book visit try shop stop drop come message reserve browse claim see ask join request text pick choose "
    "grab find get buy contact click check discover enjoy explore learn start sign schedule subscribe download "
    "register go save treat give"
)
CONCRETE_WORDS = word_set(
    "warm fresh crisp flaky soft sticky iced oven dawn crust honey cream chocolate lemon blueberries coffee tea flour "
    "hand hands glass oak steel wood cedar clay slate tile inch river rain winter summer frost storm roof sink "
    "radiators showers sofa table kitchen kettle window balcony garden fence vine roses basil thyme grass frozen meat "
    "treats fur coat leash dog cat puppy children family breakfast lunch dinner morning evening night midnight "
    "weekend friday monday tuesday saturday sunday christmas minutes hour day week shoulders back knees stairs neck "
    "nails skin face hair oil piano guitar song campfire robots exam maps photos pages paper recipes pocket shelf "
    "murder detective beaches music gloves bike mats mat leaks tomatoes pots pot seed street noise trial box loaf "
    "tray"
)
VAGUE_WORDS = word_set(
    "quality service services great good excellent solutions products range experience satisfaction priority "
    "professional selection value everyone customers need needs various many things nice amazing"
)
CLAIM_WORDS = word_set(
    "best free guaranteed guarantee cheapest lowest unbeatable miracle instantly always never perfect #1 percent "
    "number certified award winning"
)

SECOND_PERSON = word_set("you your yours you're you’re you'll")

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
ODD_CHARACTER = re.compile(r"[^A-Za-zÀ-ÿ0-9\s.,!?'’\"“”&$€£%:;()/–—-]")
VOWEL = re.compile("[aeiouyà-ÿ]")


def calls_to_action(sentences: Pieces) -> Floats:
    """One sentence that begins with an imperative; [-1, 1]."""
    return single(sentences.total(sentences.each(calls)))


def question(sentences: Pieces) -> Floats:
    """One question of at least three words; [-1, 1]. It pays less than half where nothing answers it."""
    asked = sentences.total(sentences.each(asks))
    worth = single(asked)
    return np.where((asked < sentences.number) | (worth < 0), worth, 0.4 * worth)


def second_person(words: Pieces) -> Floats:
    """`you` and its forms, one or two of them; less from a fifth of the words on, below 0 from two fifths; [-1, 1]."""
    count = words.total(words.among(SECOND_PERSON))
    crowding = np.maximum(0.0, count / np.maximum(words.number, 1) - 0.2) * 5.0
    return np.maximum(saturating(count, 0.5) - crowding, -1.0)


def concreteness(words: Pieces, originals: Pieces) -> Floats:
    """Things one can see or touch and numbers that the original states, less phrases that say nothing; (-1, 1)."""
    once = words.distinct()
    stated = once.keep(once.each(has_number) > 0)
    concrete = once.total(once.among(CONCRETE_WORDS)) + 1.5 * stated.total(stated.stand_in(originals))
    return saturating(concrete, 1.5) - saturating(words.total(words.among(VAGUE_WORDS)), 2.0)


def hardness(words: Pieces, sentences: Pieces) -> Floats:
    """Long sentences, long words, or a staccato of tiny sentences; [0, 2]."""
    per_sentence = words.number / np.maximum(sentences.number, 1)
    letters = words.total(words.each(len)) / np.maximum(words.number, 1)
    strain = np.maximum(0.0, per_sentence - 12.0) / 8.0 + np.maximum(0.0, 3.0 - per_sentence)
    return np.minimum(strain, 1.0) + np.minimum(np.maximum(0.0, letters - 5.5) / 2.0, 1.0)


def length_cost(words: Pieces) -> Floats:
    """0 from 9 to 15 words, slowly rising on both sides, steep beyond 30; [0, 6]."""
    number = words.number
    short, long = np.maximum(0, 9 - number), np.maximum(0, number - 15)
    return np.minimum((short / 6.0) ** 2.0 + (long / 12.0) ** 1.5 + 0.25 * np.maximum(0, number - 30), 6.0)


def relevance(words: Pieces, originals: Pieces) -> Floats:
    """Share of the original's content words that the text keeps; [0, 1], full from two fifths on."""
    wanted, kept = content_stems(originals).distinct(), content_stems(words).distinct()
    share = kept.total(kept.stand_in(wanted)) / np.maximum(0.4 * wanted.number, 0.4)
    return np.asarray(np.minimum(share, 1.0), dtype=np.float64)


def repetition(words: Pieces) -> Floats:
    """Share of word pairs and of content words that came before in the text; [0, 2]."""
    together = np.flatnonzero(words.text[1:] == words.text[:-1])
    pairs = words.piece[together] * len(words.known) + words.piece[together + 1]
    content = content_stems(words)
    return repeated_share(words.text[together], pairs, words.texts) + repeated_share(
        content.text, content.piece, words.texts
    )


def invented_claims(words: Pieces, originals: Pieces) -> Floats:
    """Numbers and superlatives that the original does not state; [0, 1)."""
    numbers, stated = (own.keep(own.each(has_number) > 0).renamed(number_in).distinct() for own in (words, originals))
    superlatives = words.keep(words.among(CLAIM_WORDS)).distinct()
    invented = numbers.total(~numbers.stand_in(stated)) + 0.7 * superlatives.total(~superlatives.stand_in(originals))
    return saturating(invented)


def garbage(texts: Sequence[str], words: Pieces) -> Floats:
    """How little of a text is language: odd characters, few letters, words without vowels or endless ones, a list of
    words without grammar, a last word that leaves the sentence hanging; [0, 3]."""
    number, length = words.number, np.array([len(text) for text in texts])
    odd = characters(texts, lambda character: ODD_CHARACTER.match(character) is not None) / np.maximum(length, 1)
    dense = length - np.array([text.count(" ") for text in texts])
    letters = characters(texts, str.isalpha) / np.maximum(dense, 1)
    spelled = words.keep(words.each(lambda word: word[0].isalpha()) > 0)
    broken = spelled.total(spelled.each(is_broken)) / np.maximum(spelled.number, 1)
    grammar = words.total(words.among(STOP_WORDS)) / np.maximum(number, 1)
    listing = np.where(number > 7, np.maximum(0.0, 0.08 - grammar) / 0.08, 0.0)
    is_last = np.append(words.text[1:] != words.text[:-1], True)[: len(words.text)]
    hanging = 0.3 * words.total(words.among(DANGLING) & is_last)
    unlike = 5.0 * odd + 3.0 * np.maximum(0.0, 0.75 - letters) + 2.0 * broken + 0.5 * listing + hanging
    return np.where(number > 0, np.minimum(unlike, 3.0), 3.0)


def saturating(amount: ArrayLike, scale: float = 1.0) -> Floats:
    """0 at 0, towards 1."""
    return np.asarray(1.0 - np.exp(-np.asarray(amount) / scale), dtype=np.float64)


def single(count: Floats) -> Floats:
    """1 for one occurrence, less for each further one, below 0 from the fifth on (to -1): stuffing does not pay."""
    return np.where(count == 0, 0.0, np.maximum(1.0 - 0.3 * (count - 1), -1.0))


def repeated_share(text: Integers, item: Integers, texts: int) -> Floats:
    """Share of each text's items that came before in it, 0 where there is none; text, item: (items,), item >= 0."""
    width = int(item.max(initial=0)) + 1
    distinct = np.bincount(distinct_of(text * width + item) // width, minlength=texts)
    number = np.bincount(text, minlength=texts)
    return np.where(number > 0, 1.0 - distinct / np.maximum(number, 1), 0.0)


def content_stems(words: Pieces) -> Pieces:
    return words.keep(~words.among(STOP_WORDS)).renamed(stem)


def stem(word: str) -> str:
    """A light stem: plural and verb endings cut where at least four letters stay."""
    for ending in ("ings", "ing", "ies", "es", "ed", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def calls(sentence: str) -> bool:
    first = WORD.search(sentence)
    return first is not None and first[0].lower() in CALL_VERBS and not sentence.endswith("?")


def asks(sentence: str) -> bool:
    return sentence.endswith("?") and len(WORD.findall(sentence)) >= 3


def has_number(word: str) -> bool:
    return NUMBER.search(word) is not None


def number_in(word: str) -> str:
    return "".join(NUMBER.findall(word))


def is_broken(word: str) -> bool:
    return VOWEL.search(word) is None or len(word) > 20
