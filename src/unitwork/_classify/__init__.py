"""Classifies database errors by their effect on the transaction; pure."""
