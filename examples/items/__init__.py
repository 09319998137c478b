"""Owners and their items: `uvicorn examples.items.app:app`."""
