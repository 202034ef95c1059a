"""Behaviour of the whole pipeline, with uploads and tables in folders and in S3."""
