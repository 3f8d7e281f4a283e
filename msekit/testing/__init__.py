"""Small made-up checkpoints and clips, for tests and benchmarks."""
