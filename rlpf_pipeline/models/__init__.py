"""Base models, adapters and heads: resolve, load, pack, save and reload."""
