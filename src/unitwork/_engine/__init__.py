"""A pooled connection is checked out clean, and comes back clean."""
