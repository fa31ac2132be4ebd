"""This process and its machine: files, the host, signals, devices and memory."""
