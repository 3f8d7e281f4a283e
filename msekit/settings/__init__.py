"""What a user may say of a run: RunConfig, recipes, profiles, and how their layers are resolved. No torch."""
