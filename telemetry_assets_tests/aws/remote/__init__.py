"""Steps that run on EMR Serverless and on Glue."""
