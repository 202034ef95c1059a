"""Clients of AWS, S3 locations and conditional requests, and the errors of AWS. Nothing else makes a client."""
