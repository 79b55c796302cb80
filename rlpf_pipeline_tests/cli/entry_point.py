"""`rlpf` in this process."""

import sys

import pytest

from rlpf_pipeline.cli import main

ADS = """ad_id,variant_id,text,impressions,clicks
a,1,Fresh bread every day,1000,30
a,2,Bread,1000,10
b,1,Call us,500,501
"""


def rlpf(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the entry point in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["rlpf", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)
