"""`before_commit`, COMMIT or ROLLBACK, hooks: in that order."""
