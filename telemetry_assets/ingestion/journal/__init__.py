"""The batch in progress, kept in a file or in S3 until all of its rows are committed and its uploads archived."""
