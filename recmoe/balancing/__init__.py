"""Balancing of tasks: one fork of what they share, rules that merge their gradients, weightings of their losses."""
