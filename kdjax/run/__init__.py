"""A run: configuration, working directory, devices and data, checked against each other."""
