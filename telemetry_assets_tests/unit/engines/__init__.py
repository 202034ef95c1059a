"""What is decided before an engine is started."""
