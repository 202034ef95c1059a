"""Measurements of a deployment, its CloudWatch metrics, and the test of an AWS account by use."""
