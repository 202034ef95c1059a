"""What an uploader can do on purpose: it ends as a row or as a rejection."""
