"""What a run leaves on disk: one schema, one writer and one reader for each file."""
