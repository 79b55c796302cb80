"""Renders the results of `abtest` as HTML, Markdown, JSON and plots. Never computes."""

from rlpf_pipeline.report.write import write_report

__all__ = ["write_report"]
