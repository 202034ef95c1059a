"""The asset graph, the automation and the UI, in Dagster."""
