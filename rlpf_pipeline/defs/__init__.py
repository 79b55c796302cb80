"""Dagster's side of the pipeline, and what it shares with the command line.

stages, steps, building, launcher, tracking and summary need no Dagster; the rest, with definitions.py, is the only code
that does.
"""
