"""The project's behaviour, as a specification."""
