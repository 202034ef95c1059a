"""Access to AWS: clients, locations in S3, conditional requests, and errors. Only this package creates clients."""
