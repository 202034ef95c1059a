"""Uploads' bytes, their documents and the landing folder."""
