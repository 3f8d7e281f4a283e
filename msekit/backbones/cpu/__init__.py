"""The frozen decoder written out for a CPU. Reached through `passes/choose.py` alone."""
