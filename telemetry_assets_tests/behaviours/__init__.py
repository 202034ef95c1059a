"""What holds over the whole pipeline, whatever happens."""
