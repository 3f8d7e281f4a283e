"""Feature files → rows → Arrow cache → batch. Knows no model and no settings."""
