# All options: both Spark services, a KMS key, and Dagster on Fargate.
name   = "my-fleet"
region = "eu-central-1"
tags   = { CostCenter = "telemetry" }

compute              = ["emr_serverless", "glue"]
engine               = "emr_serverless"
emr_architecture     = "ARM64" # Needs `make package ARCHITECTURES="x86_64 aarch64"`
emr_maximum_capacity = { vcpu = 100, memory_gb = 400, disk_gb = 500 }
emr_executors        = 8
glue_workers         = 9

create_kms_key         = true
archive_retention_days = 730

alarm_emails       = ["data-platform@example.com"]
monthly_budget_usd = 500

dagster = {
  vpc_id             = "vpc-0123456789abcdef0"
  subnet_ids         = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  image_tag          = "0.1.0"
  client_cidr_blocks = ["10.20.0.0/16"]
}
