"""Runs a plan, sync or async."""
