"""What a student is asked for: the terms and their weighted sum. Pure functions."""
