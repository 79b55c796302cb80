"""Small random choices one by one, many times faster than asking numpy's Generator for each.

They are the numbers that Generator.integers and Generator.random give one by one from a PCG64: a seed writes the same
texts either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

BLOCK = 1 << 14
LOW_HALF = 0xFFFFFFFF

T = TypeVar("T")


class Draws:
    """Draws from the bits of a generator, which must be a PCG64, in blocks: use `draws_from`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.bits = rng.bit_generator
        self.ready: list[int] = []
        self.half: int | None = None

    def fraction(self) -> float:
        """Uniform in [0, 1)."""
        return (self.next() >> 11) * 2.0**-53

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1, limit at most 2^32 - 1 (Lemire 2019): 32 bits a try, halves in turn."""
        if limit == 1:
            return 0
        while True:
            if self.half is None:
                both = self.next()
                bits, self.half = both & LOW_HALF, both >> 32
            else:
                bits, self.half = self.half, None
            product = bits * limit
            if (product & LOW_HALF) >= limit or (product & LOW_HALF) >= (LOW_HALF + 1 - limit) % limit:
                return product >> 32

    def choice(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def next(self) -> int:
        """64 random bits."""
        if not self.ready:
            self.ready = self.bits.random_raw(BLOCK).tolist()[::-1]
        return self.ready.pop()


@contextmanager
def draws_from(rng: np.random.Generator) -> Iterator[Draws]:
    """Draws from `rng`, which goes on behind them afterwards."""
    draws = Draws(rng)
    yield draws
    rng.bit_generator.advance(-len(draws.ready))  # type: ignore[attr-defined]
