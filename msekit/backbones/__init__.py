"""A frozen LLM: found, loaded, held in 16, 8 or 4 bit, and passed through. Knows no prompt, no settings, no data."""
