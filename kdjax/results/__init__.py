"""The figures of a run as plain data: measures, intervals, documents and tables."""
