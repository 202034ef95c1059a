"""Where a step runs: each engine reads a step's tables, runs its transform and commits the result."""
