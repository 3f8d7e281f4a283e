"""Parts of the GPU suite, a file for each kind. `benchmarks/gpu_suite.py` has the table."""
