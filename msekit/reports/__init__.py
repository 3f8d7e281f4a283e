"""Finished runs → tables, comparisons, figures, pages. No torch."""
