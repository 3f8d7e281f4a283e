"""Many runs: the paper's tables and sweeps."""
