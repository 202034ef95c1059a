"""Measurements of what the documentation states. Run them with `make bench`."""
