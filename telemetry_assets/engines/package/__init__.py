"""What remote Spark runs, built here and uploaded to S3."""
