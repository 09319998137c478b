"""All databases of a unit commit or none; recovery of what a crash has left."""
