"""The layers' operations in layouts that are fast on a backend."""
