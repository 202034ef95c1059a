"""What the pipeline does, on each store and engine that has it."""
