"""What the planted click truth and the simulated advertisers see in a text: plain functions of words and sentences.

Each returns a number of a stated range; most saturate, so that more of a good thing does not go on paying.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise


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

WORD = re.compile(r"[A-Za-zÀ-ÿ]+(?:['’-][A-Za-zÀ-ÿ]+)*|[$€£#]?\d+(?:[.,]\d+)*%?")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SENTENCE_END = re.compile(r"[^.!?]+[.!?]*")
ODD_CHARACTER = re.compile(r"[^A-Za-zÀ-ÿ0-9\s.,!?'’\"“”&$€£%:;()/–—-]")


def words_of(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def sentences_of(text: str) -> list[str]:
    """The sentences of a text with their end marks; pieces without a word are dropped."""
    return [piece.strip() for piece in SENTENCE_END.findall(text) if WORD.search(piece)]


def stem(word: str) -> str:
    """A light stem: plural and verb endings cut where at least four letters stay."""
    for ending in ("ings", "ing", "ies", "es", "ed", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def content_stems(words: Sequence[str]) -> set[str]:
    return {stem(word) for word in words if word not in STOP_WORDS}


def saturating(amount: float, scale: float = 1.0) -> float:
    """0 at 0, towards 1."""
    return 1.0 - math.exp(-max(amount, 0.0) / scale)


def single(count: int) -> float:
    """1 for one occurrence, less for each further one, below 0 from the fifth on (to -1): stuffing does not pay."""
    return 0.0 if count == 0 else max(1.0 - 0.3 * (count - 1), -1.0)


def calls_to_action(sentences: Sequence[str]) -> float:
    """One sentence that begins with an imperative; [-1, 1]."""
    starts = (words_of(sentence)[0] for sentence in sentences if not sentence.endswith("?"))
    return single(sum(start in CALL_VERBS for start in starts))


def question(sentences: Sequence[str]) -> float:
    """One question of at least three words; [-1, 1]. It pays less than half where nothing answers it."""
    asked = sum(sentence.endswith("?") and len(words_of(sentence)) >= 3 for sentence in sentences)
    answered = asked < len(sentences)
    return single(asked) * (1.0 if answered or single(asked) < 0 else 0.4)


def second_person(words: Sequence[str]) -> float:
    """`you` and its forms, one or two of them; turns negative when they make up a quarter of the words; [-1, 1]."""
    count = sum(word in ("you", "your", "yours", "you're", "you’re", "you'll") for word in words)
    crowding = max(0.0, count / max(len(words), 1) - 0.2) * 5.0
    return max(saturating(count, 0.5) - crowding, -1.0)


def concreteness(words: Sequence[str], original_words: Sequence[str]) -> float:
    """Things one can see or touch and numbers that the original states, less phrases that say nothing; (-1, 1)."""
    stated = {word for word in original_words if NUMBER.search(word)}
    concrete = sum(word in CONCRETE_WORDS for word in set(words)) + 1.5 * len(stated & set(words))
    vague = sum(word in VAGUE_WORDS for word in words)
    return saturating(concrete, 1.5) - saturating(vague, 2.0)


def hardness(words: Sequence[str], sentences: Sequence[str]) -> float:
    """Long sentences, long words, or a staccato of tiny sentences; [0, 2]."""
    per_sentence = len(words) / max(len(sentences), 1)
    letters = sum(map(len, words)) / max(len(words), 1)
    sentence_strain = max(0.0, per_sentence - 12.0) / 8.0 + max(0.0, 3.0 - per_sentence)
    return min(sentence_strain, 1.0) + min(max(0.0, letters - 5.5) / 2.0, 1.0)


def length_cost(number_of_words: int) -> float:
    """0 from 9 to 15 words, slowly rising on both sides, steep beyond 30; [0, 6]."""
    short, long = max(0, 9 - number_of_words), max(0, number_of_words - 15)
    return min(math.pow(short / 6.0, 2.0) + math.pow(long / 12.0, 1.5) + 0.25 * max(0, number_of_words - 30), 6.0)


def relevance(words: Sequence[str], original_words: Sequence[str]) -> float:
    """Share of the original's content words that the text keeps; [0, 1], full from two fifths on."""
    wanted = content_stems(original_words)
    return min(len(wanted & content_stems(words)) / (0.4 * len(wanted)), 1.0) if wanted else 0.0


def repetition(words: Sequence[str]) -> float:
    """Share of word pairs and of content words that came before in the text; [0, 2]."""
    pairs = list(pairwise(words))
    content = [stem(word) for word in words if word not in STOP_WORDS]
    return repeated_share(pairs) + repeated_share(content)


def repeated_share(items: Sequence[object]) -> float:
    return 1.0 - len(set(items)) / len(items) if items else 0.0


def invented_claims(words: Sequence[str], original_words: Sequence[str]) -> float:
    """Numbers and superlatives that the original does not state; [0, 1)."""
    stated = {number for word in original_words for number in NUMBER.findall(word)} | set(original_words)
    numbers = {number for word in words for number in NUMBER.findall(word)} - stated
    superlatives = (set(words) & CLAIM_WORDS) - stated
    return saturating(len(numbers) + 0.7 * len(superlatives), 1.0)


def garbage(text: str, words: Sequence[str]) -> float:
    """How little of the text is language: odd characters, few letters, words without vowels or endless ones, a list of
    words without grammar, a last word that leaves the sentence hanging; [0, 3]."""
    if not words:
        return 3.0
    odd = len(ODD_CHARACTER.findall(text)) / len(text)
    letters = sum(character.isalpha() for character in text) / len(text.replace(" ", "") or " ")
    spelled = [word for word in words if word[0].isalpha()]
    broken = sum(not re.search("[aeiouyà-ÿ]", word) or len(word) > 20 for word in spelled) / max(len(spelled), 1)
    grammar = sum(word in STOP_WORDS for word in words) / len(words)
    listing = max(0.0, 0.08 - grammar) / 0.08 if len(words) > 7 else 0.0
    hanging = 0.3 if words[-1] in DANGLING else 0.0
    return min(5.0 * odd + 3.0 * max(0.0, 0.75 - letters) + 2.0 * broken + 0.5 * listing + hanging, 3.0)
