"""Metrics of a deployment, their way to CloudWatch, and a smoke test of the AWS account."""
