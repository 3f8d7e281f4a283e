"""How fast: training, scoring, loading, starting and serving, beside the published procedure."""
