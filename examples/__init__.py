"""Applications to read and to run; they are not part of the package."""
