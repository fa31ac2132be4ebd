"""Turns a step of the plan into the batch that networks see: pure functions, and the feed."""
