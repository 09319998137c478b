"""Runs a call, shields it or limits its time; knows nothing of databases."""
