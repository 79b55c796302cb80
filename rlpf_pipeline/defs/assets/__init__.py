"""The assets, by business area."""
