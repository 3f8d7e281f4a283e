"""A plug-in for others: export, card, import from the authors' files."""
