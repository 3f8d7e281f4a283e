"""Feature files of every known layout → rows, without executing anything in them."""
