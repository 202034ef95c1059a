"""What an uploader can do on purpose, and what must come of it: a row, or a rejection."""
