"""A finished student leaves the house: export, prediction, maps."""
