"""The layers' operations, in layouts that are fast on one kind of backend."""
