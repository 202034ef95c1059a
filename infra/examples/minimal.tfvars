# Buckets, catalog, policies and alarms, without a Spark service: the project runs the transforms in its own process.
name    = "my-fleet"
region  = "eu-central-1"
compute = []
engine  = "embedded"

alarm_emails = ["data-platform@example.com"]
