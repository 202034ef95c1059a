"""An additional Gold table, added as a contributor would: a table, a transform and an entry in the registry."""
