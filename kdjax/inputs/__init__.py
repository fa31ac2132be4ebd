"""From a plan's step to the batch that networks see. Pure functions, and the feed."""
