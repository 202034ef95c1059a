"""EMR Serverless and Glue: job runs that refresh tables or parse batches outside this machine."""
