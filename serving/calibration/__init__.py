"""Whether a model predicts, on average, what is expected of it."""
