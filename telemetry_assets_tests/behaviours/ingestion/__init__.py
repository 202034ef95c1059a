"""From waiting uploads to Bronze."""
