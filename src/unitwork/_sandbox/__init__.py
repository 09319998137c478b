"""`sandbox()`: a test's transaction around all that it does, or a real database."""
