"""Training a population: state, step, optimizer, loop, checkpoints."""
