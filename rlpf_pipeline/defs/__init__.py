"""Dagster's side of the pipeline. `stages.py` and `steps.py` need no Dagster; the rest is the only code that does."""
