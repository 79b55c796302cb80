"""What makes a rewrite a bad example to imitate: it says what its original does not, copies it, or leaves it.

Names are told by their capital letters, languages by their scripts: no word list, no model. So a name at the start of a
sentence passes, as does a change of language within one script if a content word is shared; words all in capitals are
taken for emphasis. An original that capitalises half of its words (headline style) says nothing about names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
CONTENT_WORD = re.compile(r"[^\W\d_]{4,}")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
WORD_JOINT = re.compile(r"['’-]")
BEFORE_A_SENTENCE = re.compile(r"(?:^|[.!?:…;|•–—-])[\s\"'“”‘’«»()\[\]]*$")
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA")


def reason_to_refuse(original: str, rewrite: str) -> str:
    """Why a rewrite is no good example, or an empty string."""
    if not rewrite:
        return "empty, or not finished within the length limit"
    if is_copy(original, rewrite):
        return "a copy of the original"
    for what, new in (
        ("numbers", new_numbers(original, rewrite)),
        ("names", new_names(original, rewrite)),
        ("a script", new_scripts(original, rewrite)),
    ):
        if new:
            return f"{what} the original does not have: {', '.join(sorted(new))}"
    words = len(rewrite.split())
    if not 4 <= words <= 2 * len(original.split()):
        return f"length of {words} words"
    if not content_words(original) & content_words(rewrite):
        return "shares no content word with the original"
    return ""


def is_copy(original: str, rewrite: str) -> bool:
    """Whether both are the same text, whatever its case."""
    return original.casefold() == rewrite.casefold()


def new_numbers(original: str, rewrite: str) -> set[str]:
    """Numbers in digits that only the rewrite has."""
    return set(NUMBER.findall(rewrite)) - set(NUMBER.findall(original))


def new_names(original: str, rewrite: str) -> set[str]:
    """Words that the rewrite capitalises inside a sentence and the original does not have in any case.

    Empty where the original capitalises at least half of its words inside sentences.
    """
    inside = list(words_inside_sentences(original))
    if inside and sum(is_capitalised(word) for word in inside) >= len(inside) / 2:
        return set()
    known = {part.casefold() for word in WORD.findall(original) for part in WORD_JOINT.split(word)}
    candidates = (part for word in words_inside_sentences(rewrite) for part in WORD_JOINT.split(word))
    return {part for part in candidates if is_capitalised(part) and part.casefold() not in known}


def new_scripts(original: str, rewrite: str) -> set[str]:
    """Writing systems (Latin, Cyrillic, …) that only the rewrite has letters of."""
    return scripts(rewrite) - scripts(original)


def content_words(text: str) -> set[str]:
    """Words of four letters or more, in lower case."""
    return {word.casefold() for word in CONTENT_WORD.findall(text)}


def words_inside_sentences(text: str) -> Iterator[str]:
    """Words that do not begin a sentence, nor what follows a colon or a dash."""
    return (match.group() for match in WORD.finditer(text) if not BEFORE_A_SENTENCE.search(text[: match.start()]))


def is_capitalised(word: str) -> bool:
    """With a capital letter, but not all in capitals, as emphasis, initials and the word "I" are."""
    return word != word.lower() and word != word.upper()


def scripts(text: str) -> set[str]:
    """Scripts of a text's letters, as their Unicode names begin; kana and Chinese characters count as one."""
    letters = (letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha())
    names = {unicodedata.name(letter, "UNNAMED").partition(" ")[0] for letter in letters}
    return {"CJK" if name.startswith(EAST_ASIAN) else name.capitalize() for name in names}
