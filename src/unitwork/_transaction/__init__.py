"""The transaction of a pooled connection: its beginning, its state and its end."""
