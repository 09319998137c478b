"""OpenTelemetry: observers that record metrics and spans. Needs its API alone."""
