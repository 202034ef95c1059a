"""The pipeline's behaviour, on each store and engine."""
