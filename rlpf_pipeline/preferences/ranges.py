"""Ranges of ads and rounds of hashes: tables of any size, worked on a bounded number of rows at a time."""

from __future__ import annotations

import math

from rlpf_pipeline.warehouse import Warehouse

PART_ROWS = 1_000_000
ROUND_ROWS = 4_000_000


def ranges_of_ads(warehouse: Warehouse, numbered: str) -> list[dict[str, object]]:
    """first_ad, last_ad, first_id and last_id of ranges of ads that have about PART_ROWS raw rows each, in order.

    numbered: the relation of all ads with the columns ad, from 0 in order of ad_id, and ad_id.
    """
    ranges = warehouse.query(
        f"""
        SELECT min(ad) AS first_ad, max(ad) AS last_ad, min(ad_id) AS first_id, max(ad_id) AS last_id
        FROM {numbered}
        GROUP BY ad // (SELECT ceil(count(*) * $part_rows / $rows)::BIGINT FROM {numbered})
        ORDER BY first_ad
        """,  # noqa: S608 - words of this package
        {"part_rows": PART_ROWS, "rows": warehouse.count("raw_multitext_ads")},
    )
    return [dict(own) for own in ranges.to_pylist()]


def rounds_of_hashes(warehouse: Warehouse) -> list[dict[str, object]]:
    """A round for each remainder that about ROUND_ROWS raw rows' hashes leave, divided by the number of rounds."""
    return [{"round": number} for number in range(math.ceil(warehouse.count("raw_multitext_ads") / ROUND_ROWS))]
