"""Clips → feature sequences: audio and vision read from files, the extractors, the table they end in."""
