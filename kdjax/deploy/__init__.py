"""Deployment of a finished student: export, prediction and maps."""
