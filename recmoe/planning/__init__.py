"""What a step needs, what a machine can do, and what follows: placement, step time and what bounds it."""
