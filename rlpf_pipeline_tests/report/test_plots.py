"""What is drawn of names that no SVG may hold, and of effects that no usual axis shows."""

from __future__ import annotations

import re

import pytest

from rlpf_pipeline.abtest.log_binomial import RelativeRisk
from rlpf_pipeline.abtest.over_time import OverTime, PeriodEffect
from rlpf_pipeline.abtest.sequential import AnytimeInterval
from rlpf_pipeline.report.plots import (
    drawable,
    inline_svg,
    interval_row,
    layer,
    over_time_plot,
    png,
    ratio_plot,
    styled,
)


def test_characters_that_xml_forbids_are_replaced():
    values = [{"name": "a\x01b\x0b\ufffe\ud800é😀\n", "ratio": 1.5}]
    assert drawable({"values": values}) == {"values": [{"name": "a\ufffdb\ufffd\ufffd\ufffdé😀\n", "ratio": 1.5}]}


def test_a_name_with_a_control_character_is_drawn():
    plot = styled(layer([{"name": "a\x0b"}], {"type": "text"}, {"text": {"field": "name", "type": "nominal"}}))
    assert "a\ufffd" in inline_svg(plot)
    assert png(inline_svg(plot)).startswith(b"\x89PNG")


def test_an_interval_beyond_the_axis_is_drawn_at_its_end_around_its_estimate():
    risk = RelativeRisk(27.0, 26.0, 29.0, standard_error=0.03, z=100.0, p_value=0.0, level=0.95)
    effects = tuple(PeriodEffect(day, risk, AnytimeInterval(25.0, 30.0, 0.0), None) for day in (1, 2))
    band, _, bars, *_ = over_time_plot(OverTime("day", effects, 0.0, 1, None))["layer"]
    for value in bars["data"]["values"]:
        assert value["low"] <= value["ratio"] <= value["high"]
    for value in band["data"]["values"]:
        assert value["low"] <= value["high"]


@pytest.mark.parametrize("width", [0.5, 0.05, 0.002, 0.0003])
def test_an_axis_tells_its_ticks_apart(width):
    risk = RelativeRisk(1 + width / 2, 1.0, 1 + width, standard_error=width / 4, z=2.0, p_value=0.05, level=0.95)
    drawn = inline_svg(ratio_plot([interval_row("a", risk, "#3b82c4")], "One"))
    ticks = re.findall(r">([\d.]+)</text>", drawn)
    assert len(ticks) > 1
    assert len(set(ticks)) == len(ticks)
