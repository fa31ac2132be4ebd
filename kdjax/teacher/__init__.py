"""Teachers, and their outputs stored on disk."""
