"""The parts of ``benchmarks.architectures``: logs, variants, trainings, and what is written of them."""
