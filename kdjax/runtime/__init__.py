"""This process and its machines: files, the host, signals, devices, memory."""
