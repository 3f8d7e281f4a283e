"""One file per command: parse, make a config, one call. No logic, and no torch for `--help`."""
