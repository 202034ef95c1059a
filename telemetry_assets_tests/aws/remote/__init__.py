"""Steps that run on EMR Serverless and Glue."""
