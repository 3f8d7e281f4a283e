"""How much memory: preparing data, a training step, a quantised LLM."""
