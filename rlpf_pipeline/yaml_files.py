"""YAML that users write: plain values, and no key twice, of which PyYAML takes the last one without a word."""

from __future__ import annotations

from typing import Any

import yaml

MERGE = "tag:yaml.org,2002:merge"


class Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        known = set()
        for key, _ in node.value:
            if key.tag != MERGE and isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in known:
                    raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands there twice", problem_mark=key.start_mark)
                known.add((key.tag, key.value))
        return node


def loaded(text: str) -> Any:
    """Its values. Raises yaml.YAMLError, also for what PyYAML lets through or calls by another name: a date that no
    calendar has, and nesting without end."""
    try:
        return yaml.load(text, Loader)  # noqa: S506 (a SafeLoader)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(error) from error
