"""Reinforcement Learning with Performance Feedback: from raw multitext ads to a better copywriter, and its proof."""

__version__ = "0.1.0"
