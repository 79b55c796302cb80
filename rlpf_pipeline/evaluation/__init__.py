"""Offline evaluation of reward models and policies, on splits that they have not learned from."""
