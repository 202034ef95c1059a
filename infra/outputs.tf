locals {
  remote_settings = length(var.compute) == 0 ? {} : {
    TELEMETRY_SCRIPTS_URI            = local.scripts_uri
    TELEMETRY_REMOTE_TIMEOUT_MINUTES = tostring(var.remote_timeout_minutes)
    TELEMETRY_REMOTE_SIZES = jsonencode({
      default = merge(
        { executors = local.use_glue && (var.engine == "glue" || !local.use_emr_serverless) ? var.glue_workers - 1 : var.emr_executors },
        local.use_glue ? { glue_worker_type = var.glue_worker_type } : {},
      )
    })
  }

  emr_settings = !local.use_emr_serverless ? {} : {
    TELEMETRY_EMR_APPLICATION_ID = aws_emrserverless_application.this[0].id
    TELEMETRY_EMR_JOB_ROLE_ARN   = aws_iam_role.job[0].arn
  }

  settings = merge(
    {
      TELEMETRY_LANDING_URI       = local.landing_uri
      TELEMETRY_LAKEHOUSE_URI     = local.lakehouse_uri
      TELEMETRY_CATALOG           = "glue"
      TELEMETRY_ENGINE            = var.engine
      TELEMETRY_METRICS_NAMESPACE = local.metrics_namespace
    },
    local.kms_key_arn == null ? {} : { TELEMETRY_KMS_KEY_ID = local.kms_key_arn },
    local.remote_settings,
    local.emr_settings,
    local.use_glue ? { TELEMETRY_GLUE_JOB_NAME = aws_glue_job.this[0].name } : {},
    var.settings,
  )
}

output "dotenv" {
  description = "The project's .env file: `terraform output -raw dotenv > ../.env`."
  value       = join("", [for name, value in local.settings : "${name}=${value}\n"])
}

output "region" {
  description = "The region, for AWS_REGION."
  value       = var.region
}

output "landing_uri" {
  description = "Where uploads are left."
  value       = local.landing_uri
}

output "uploader_policy_arn" {
  description = "The policy of whatever leaves uploads."
  value       = aws_iam_policy.uploader.arn
}

output "orchestrator_policy_arn" {
  description = "The policy of whatever runs Dagster or the command line."
  value       = aws_iam_policy.orchestrator.arn
}

output "analyst_policy_arn" {
  description = "The policy of analysts."
  value       = aws_iam_policy.analyst.arn
}

output "athena_workgroup" {
  description = "Where analysts query."
  value       = aws_athena_workgroup.this.name
}

output "alarm_topic_arn" {
  description = "Where alarms are told."
  value       = aws_sns_topic.alarms.arn
}

output "dagster" {
  description = "Where Dagster's image is pushed to, the ECS cluster and service, and the port of the UI; null where Dagster runs elsewhere."
  value       = var.dagster == null ? null : module.dagster[0]
}
