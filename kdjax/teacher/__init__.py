"""Teachers, and the arrays of their outputs on disk."""
