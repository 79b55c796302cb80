"""What is drawn of names that no SVG may hold."""

from __future__ import annotations

from rlpf_pipeline.report.plots import drawable, inline_svg, layer, png, styled


def test_characters_that_xml_forbids_are_replaced():
    values = [{"name": "a\x01b\x0b\ufffe\ud800é😀\n", "ratio": 1.5}]
    assert drawable({"values": values}) == {"values": [{"name": "a\ufffdb\ufffd\ufffd\ufffdé😀\n", "ratio": 1.5}]}


def test_a_name_with_a_control_character_is_drawn():
    plot = styled(layer([{"name": "a\x0b"}], {"type": "text"}, {"text": {"field": "name", "type": "nominal"}}))
    assert "a\ufffd" in inline_svg(plot)
    assert png(plot).startswith(b"\x89PNG")
