"""The DataFrame functions of Silver and Gold, on a few rows."""
