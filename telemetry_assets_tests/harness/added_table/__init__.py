"""A Gold table that the project does not have, added as a contributor adds one: a table, a transform, the registry."""
