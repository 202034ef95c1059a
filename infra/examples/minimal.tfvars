# One machine and no Spark service: buckets, catalog, roles and alarms. The project runs its transforms in its own process.
name    = "my-fleet"
region  = "eu-central-1"
compute = []
engine  = "embedded"

alarm_emails = ["data-platform@example.com"]
