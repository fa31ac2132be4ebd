"""What `main` runs: train, evaluate, follow, describe."""
