"""Evaluations that need a model on the accelerator, started like training jobs."""
