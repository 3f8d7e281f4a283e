"""A frozen decoder layer by kernels of its own on a GPU. Reached through `passes/choose.py` alone."""
