"""Rendered land-use scenes, for the demo and for tests."""
