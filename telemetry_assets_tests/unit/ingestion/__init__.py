"""An upload's bytes, its documents, and the folder where it waits."""
