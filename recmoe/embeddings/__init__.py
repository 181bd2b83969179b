"""Embedding tables: two back ends with one logical state, their placement and their optimizers."""
