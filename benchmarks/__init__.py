"""Measurements of speed and memory beside what a user would take instead. Results are in docs/."""
