"""States, intent, sessions, attempts of one unit of work; blocks; the current unit."""
