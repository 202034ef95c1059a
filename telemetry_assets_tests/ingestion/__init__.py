"""From bytes to Bronze."""
