"""Delivers events to the observers of the databases that they are about."""
