"""One script per peer, each run inside the peer's own environment, where recmoe is not installed."""
