"""Adapter + frozen LLM + prompt + label space = `MSEModel`; `assemble.py` is the one place that puts it together."""
