"""A plug-in in use: loaded from a run, fed with text, audio and vision. Knows no training."""
