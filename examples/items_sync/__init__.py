"""The same application for `Session` and `def` endpoints."""
