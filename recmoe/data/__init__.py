"""From files of raw rows to batches: streams, loaders, example logs."""
