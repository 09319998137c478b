"""Says what a database error means for its transaction; pure, the tables are data."""
