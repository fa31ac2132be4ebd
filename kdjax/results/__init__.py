"""Figures of a run: measures, intervals, documents, tables. Plain data."""
