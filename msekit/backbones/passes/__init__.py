"""Shorter ways through the frozen LLM, and `choose.py`, which decides which of them a backbone uses."""
