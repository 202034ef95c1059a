data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# Names, locations and ARNs that several files use.
locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  suffix    = "${local.account}-${var.region}"

  # The prefix contains bronze/, silver/, gold/, archive/, ingestion/ and remote/.
  lakehouse_prefix = "telemetry"
  scripts_prefix   = "telemetry"

  landing_uri   = "s3://${module.landing.name}"
  lakehouse_uri = "s3://${module.lakehouse.name}/${local.lakehouse_prefix}"
  scripts_uri   = "s3://${module.scripts.name}/${local.scripts_prefix}"

  metrics_namespace = "TelemetryAssets"

  # Values of the KMS encryption context aws:s3:arn for the pipeline's buckets and objects.
  pipeline_contents = flatten([for one in [module.landing, module.lakehouse, module.scripts] : [one.arn, "${one.arn}/*"]])

  use_emr_serverless = contains(var.compute, "emr_serverless")
  use_glue           = contains(var.compute, "glue")
  glue_job_name      = "${var.name}-steps"

  kms_key_arn = var.create_kms_key ? aws_kms_key.this[0].arn : var.kms_key_arn

  glue_arn     = "arn:${local.partition}:glue:${var.region}:${local.account}"
  glue_job_arn = "${local.glue_arn}:job/${local.glue_job_name}"
  catalog_arns = concat(
    ["${local.glue_arn}:catalog"],
    [for name in var.databases : "${local.glue_arn}:database/${name}"],
    [for name in var.databases : "${local.glue_arn}:table/${name}/*"],
  )
}

# The project's settings, for the output `dotenv` and for Dagster on Fargate.
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
    var.archive_retention_days == null ? {} : { TELEMETRY_ARCHIVE_RETENTION_DAYS = tostring(var.archive_retention_days) },
    var.rejected_retention_days == null ? {} : { TELEMETRY_REJECTED_RETENTION_DAYS = tostring(var.rejected_retention_days) },
    local.kms_key_arn == null ? {} : { TELEMETRY_KMS_KEY_ID = local.kms_key_arn },
    # Glue's table optimizers do the work that runs would do at their end.
    var.table_optimizers ? { TELEMETRY_MAINTENANCE_SECONDS = "0" } : {},
    local.remote_settings,
    local.emr_settings,
    local.use_glue ? { TELEMETRY_GLUE_JOB_NAME = aws_glue_job.this[0].name } : {},
    var.settings,
  )
}
