"""Cached samples → what the adapter is fed: preprocessed, completed, put in dialogue, collated."""
