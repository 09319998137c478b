"""Real databases for tests: made ahead, and given to one test each."""
