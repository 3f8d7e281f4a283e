"""The one door to the frozen pass."""
