"""Reads from replicas: which one serves a unit, and what it must have replayed."""
