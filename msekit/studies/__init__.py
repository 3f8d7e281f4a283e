"""A trained run, looked at again: evaluated, calibrated, disturbed, averaged with others, its backbone verified."""
