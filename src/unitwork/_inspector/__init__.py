"""The inspector: what units do now and have done, as pages and as JSON."""
