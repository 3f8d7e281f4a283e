"""Label scores of a split, and what the metrics are."""
