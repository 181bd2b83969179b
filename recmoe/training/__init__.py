"""Training: the loop, its optimizers and schedules, and checkpoints."""
