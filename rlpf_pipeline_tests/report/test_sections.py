"""What the report's tables say of rates far below a percent."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlpf_pipeline.abtest import analyse
from rlpf_pipeline.abtest.arms import QuantileEffect
from rlpf_pipeline.report.plots import inline_svg, quantile_plot
from rlpf_pipeline.report.sections import arms_section, error_of, shift_row


def test_rates_of_a_few_in_ten_million_are_told_to_three_digits():
    """Control: 40 x (2 + 4) clicks of 80 x 10 million, 3e-7 or 0.00003 %; treatment twice that."""
    clicks = np.repeat([2, 4, 4, 8], 40)
    arms = np.repeat(["control", "treatment"], 80)
    rows = pd.DataFrame({"advertiser_id": np.arange(160), "arm": arms, "impressions": 10_000_000, "clicks": clicks})
    analysis = analyse(rows)
    totals, spread, shifts = (grid.rows for grid in arms_section(analysis).grids)
    assert [row[4] for row in totals] == ["0.0000300 %", "0.0000600 %"]
    assert spread[0][2:] == ("0.0000300 %", *["0.0000200 %"] * 2, "0.0000300 %", *["0.0000400 %"] * 2)
    assert shifts[0][:4] == ("CTR", "10 %", "0.0000200 %", "0.0000200 %")
    drawn = inline_svg(quantile_plot(analysis))
    assert "0.00002%" in drawn
    assert "0.0%" not in drawn


def test_a_difference_far_below_the_rate_is_told_to_two_digits_of_its_interval():
    effect = QuantileEffect("CTR", 0.5, control=0.025, difference=-3.1e-7, low=-2.1e-6, high=1.5e-6)
    assert shift_row(effect, 3) == ("CTR", "50 %", "2.50000 %", "−0.00003 %", "−0.00021 % to 0.00015 %")
    assert shift_row(effect._replace(difference=-1e-9), 3)[3] == "0.00000 %"


def test_a_small_error_is_told_to_two_digits():
    assert [error_of(error, 5) for error in (0.0123456, 4.2e-7, 0.0)] == ["0.01235", "0.00000042", "0.00000"]
