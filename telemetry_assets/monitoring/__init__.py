"""Metrics of a deployment, sending them to CloudWatch, and a smoke test of the AWS account."""
