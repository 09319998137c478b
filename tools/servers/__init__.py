"""Private servers for tests: one for a command, or several to be killed and promoted.

The programs beside this package start them for a command: `python tools/postgres.py`.
"""
