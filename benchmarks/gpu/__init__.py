"""Parts of the GPU suite, a file for each kind. `benchmarks/gpu/suite.py` has the table."""
