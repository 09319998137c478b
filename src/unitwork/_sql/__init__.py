"""What a statement does, by its text or its clauses."""
