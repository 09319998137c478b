"""The test kit: what `unitwork.testing` and the pytest plugin are made of."""
