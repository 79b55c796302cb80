"""How many decimals a reader needs, and text that must not become markup."""

from __future__ import annotations

import pytest

from rlpf_pipeline.abtest.log_binomial import RelativeRisk
from rlpf_pipeline.report.wording import change_with_interval, estimate, interval, markdown_text


def risk(value: float, low: float, high: float) -> RelativeRisk:
    return RelativeRisk(value, low, high, standard_error=0.1, z=0.0, p_value=1.0, level=0.95)


@pytest.mark.parametrize(
    ("found", "ratio", "changed"),
    [
        (risk(1.0537, 1.011, 1.0982), "1.054 (1.011 to 1.098)", "+5.4 % (+1.1 % to +9.8 %)"),
        (risk(1.00026, 1.0001, 1.00042), "1.00026 (1.00010 to 1.00042)", "+0.026 % (+0.010 % to +0.042 %)"),
        (risk(0.0001, 0.00008, 0.00012), "0.000100 (0.000080 to 0.000120)", "−99.9900 % (−99.9920 % to −99.9880 %)"),
        (risk(1.0, 1.0, 1.0), "1.000000000 (1.000000000 to 1.000000000)", None),
    ],
)
def test_narrow_intervals_are_told_to_two_digits_of_their_width(found, ratio, changed):
    assert f"{estimate(found)} ({interval(found)})" == ratio
    assert changed is None or change_with_interval(found) == changed


def test_markup_of_github_is_escaped_in_markdown():
    assert markdown_text("~~a~~ $b$ [c](d)") == r"\~\~a\~\~ \$b\$ \[c\](d)"
