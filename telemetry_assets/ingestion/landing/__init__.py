"""Where uploads wait, and the archive that they go to: a folder or S3."""
