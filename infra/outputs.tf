output "dotenv" {
  description = "Content of the project's .env file: `terraform output -raw dotenv > ../.env`."
  value       = join("", [for name, value in local.settings : "${name}=${value}\n"])
}

output "region" {
  description = "AWS region, for the environment variable AWS_REGION."
  value       = var.region
}

output "landing_uri" {
  description = "S3 location that uploads are put to."
  value       = local.landing_uri
}

output "uploader_policy_arn" {
  description = "ARN of the policy for producers, which put uploads."
  value       = aws_iam_policy.uploader.arn
}

output "orchestrator_policy_arn" {
  description = "ARN of the policy for the process that runs Dagster or the command line."
  value       = aws_iam_policy.orchestrator.arn
}

output "analyst_policy_arn" {
  description = "ARN of the policy for analysts, who query Gold."
  value       = aws_iam_policy.analyst.arn
}

output "athena_workgroup" {
  description = "Name of the Athena workgroup for analysts."
  value       = aws_athena_workgroup.this.name
}

output "alarm_topic_arn" {
  description = "ARN of the SNS topic that alarms and budget notifications are sent to."
  value       = aws_sns_topic.alarms.arn
}

output "dagster" {
  description = "URL of the repository for Dagster's image, name of the ECS cluster and service, and port of the UI; null if `dagster` is null."
  value       = var.dagster == null ? null : module.dagster[0]
}
