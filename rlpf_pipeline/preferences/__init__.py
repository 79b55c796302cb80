"""Preferences: variant performance, splits without leaks, preference pairs and their noise ceiling."""
