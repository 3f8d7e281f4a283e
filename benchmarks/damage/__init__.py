"""What damaged and hostile files do: mutants of every file that the kit reads."""
