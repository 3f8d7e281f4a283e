"""The loop, the optimiser step, and what resuming needs."""
