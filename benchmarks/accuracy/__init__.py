"""How well a trained plug-in answers: rows of tables, ablations, settings, the text alone."""
