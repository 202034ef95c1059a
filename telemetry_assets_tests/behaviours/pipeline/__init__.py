"""What holds over the whole pipeline, in every place where uploads and tables can be."""
