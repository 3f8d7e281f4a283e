"""From a name to checkpoint files that transformers loads: located, downloaded, converted, checked."""
