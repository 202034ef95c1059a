"""The graph, what starts runs, and what the UI shows, in Dagster."""
