"""A `Session` that refuses work after its end, and reports to its owner."""
