"""Many texts read at once, for the features of `text_features.py`: their words, sentences and characters.

What a piece is, is found out once for each distinct one; what counts in a text is counted by numpy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

WORD = re.compile(r"[A-Za-zÀ-ÿ]+(?:['’-][A-Za-zÀ-ÿ]+)*|[$€£#]?\d+(?:[.,]\d+)*%?")
SENTENCE = re.compile(r"[^.!?]+[.!?]*")


@dataclass(frozen=True)
class Pieces:
    """Texts in pieces (words or sentences), in order: `known[piece[i]]` stands in the text of number `text[i]`.

    text (ascending), piece: (pieces,); texts: their number, those without a piece included.
    """

    texts: int
    text: Integers
    piece: Integers
    known: list[str]

    @property
    def number(self) -> Integers:
        """Pieces of each text: (texts,)."""
        return np.bincount(self.text, minlength=self.texts)

    def each(self, tell: Callable[[str], float]) -> Floats:
        """What `tell` says of each piece: (pieces,)."""
        return np.array([tell(piece) for piece in self.known], dtype=np.float64)[self.piece]

    def among(self, wanted: Collection[str]) -> Booleans:
        """Whether each piece is one of those: (pieces,)."""
        return np.array([piece in wanted for piece in self.known], dtype=np.bool_)[self.piece]

    def total(self, amounts: Floats | Booleans) -> Floats:
        """Sum of `amounts`, (pieces,), over each text: (texts,)."""
        return np.bincount(self.text, weights=amounts, minlength=self.texts).astype(np.float64)

    def keep(self, wanted: Booleans) -> Pieces:
        """The same texts, with these pieces alone; wanted: (pieces,)."""
        return Pieces(self.texts, self.text[wanted], self.piece[wanted], self.known)

    def renamed(self, name: Callable[[str], str]) -> Pieces:
        """Every piece replaced by its `name`."""
        names: defaultdict[str, int] = defaultdict(count().__next__)
        numbers = np.array([names[name(piece)] for piece in self.known], dtype=np.int64)
        return Pieces(self.texts, self.text, numbers[self.piece], list(names))

    def distinct(self) -> Pieces:
        """Every piece of a text once, in no particular order."""
        text, piece = np.divmod(distinct_of(self.keys), max(len(self.known), 1))
        return Pieces(self.texts, text, piece, self.known)

    def of_texts(self, chosen: Integers) -> Pieces:
        """The texts of those numbers, which may repeat: (texts,) of the result."""
        lengths = self.number[chosen]
        text = np.repeat(np.arange(len(chosen)), lengths)
        ends = np.cumsum(self.number)
        place = np.arange(len(text)) + np.repeat(ends[chosen] - np.cumsum(lengths), lengths)
        return Pieces(len(chosen), text, self.piece[place], self.known)

    def stand_in(self, others: Pieces) -> Booleans:
        """Whether each piece also stands in the text of the same number of `others`, which know the same: (pieces,)."""
        theirs = np.append(np.sort(others.keys), -1)
        return np.asarray(theirs[np.searchsorted(theirs[:-1], self.keys)] == self.keys, dtype=np.bool_)

    @property
    def keys(self) -> Integers:
        """A number for each text and piece: (pieces,)."""
        return self.text * len(self.known) + self.piece


def read_words(texts: Sequence[str]) -> Pieces:
    """The words of each text, in lower case."""
    return pieces_of(texts, WORD).renamed(str.lower)


def read_sentences(texts: Sequence[str]) -> Pieces:
    """The sentences of each text with their end marks; what holds no word is none."""
    pieces = pieces_of(texts, SENTENCE)
    return pieces.keep(pieces.each(lambda piece: WORD.search(piece) is not None) > 0)


def pieces_of(texts: Sequence[str], pattern: re.Pattern[str]) -> Pieces:
    known: defaultdict[str, int] = defaultdict(count().__next__)
    numbers = [[known[piece] for piece in pattern.findall(text)] for text in texts]
    lengths = np.array([len(own) for own in numbers], dtype=np.int64)
    pieces = np.array([piece for own in numbers for piece in own], dtype=np.int64)
    return Pieces(len(texts), np.repeat(np.arange(len(texts)), lengths), pieces, list(known))


def distinct_of(numbers: Integers) -> Integers:
    """The distinct numbers, in order: np.unique, which takes ten times as long by hashing."""
    in_order = np.sort(numbers)
    is_first = np.append(True, in_order[1:] != in_order[:-1])[: len(in_order)]
    return np.asarray(in_order[is_first], dtype=np.int64)


def characters(texts: Sequence[str], wanted: Callable[[str], bool]) -> Integers:
    """How many characters of each text are `wanted`: (texts,)."""
    together = "".join(texts)
    codes = np.frombuffer(together.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    is_wanted = np.zeros(codes.max(initial=0) + 1, dtype=np.bool_)
    is_wanted[[ord(character) for character in set(together) if wanted(character)]] = True
    so_far = np.concatenate([[0], np.cumsum(is_wanted[codes])])
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return np.asarray(np.diff(so_far[ends], prepend=0), dtype=np.int64)
