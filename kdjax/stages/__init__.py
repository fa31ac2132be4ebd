"""Stages that `main` runs: train, evaluate, follow, describe."""
