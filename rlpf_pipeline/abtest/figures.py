"""How a number is told, in checks and reports alike: decimals, thousands, and a minus sign that is one."""

from __future__ import annotations

import math

MINUS = "\u2212"
LARGEST_IN_FULL = 1e12
MOST_DECIMALS = 9


def fixed(value: float, decimals: int = 3, sign: str = "") -> str:
    """With a sign asked for, what rounds to 0 keeps its own: it tells on which side of 0 an interval ends."""
    text = f"{value:{sign},.{decimals}f}" if abs(value) < LARGEST_IN_FULL else f"{value:{sign}.2e}"
    nothing = sign == "" and not any(digit in text for digit in "123456789")
    return text.lstrip("-") if nothing else text.replace("-", MINUS)


def signed(value: float, decimals: int) -> str:
    return fixed(value, decimals, sign="+")


def decimals_for(width: float, fewest: int) -> int:
    """So many that an interval of that width shows two digits of it."""
    return min(max(fewest, 1 - math.floor(math.log10(max(width, 10.0**-MOST_DECIMALS)))), MOST_DECIMALS)
