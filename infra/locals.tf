# Where things are, said once: resources, policies and the project's settings take it from here.

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  suffix    = "${local.account}-${var.region}"

  # Below it are the tables by layer (bronze/, silver/, gold/), the archive/, ingestion/ and remote/.
  lakehouse_prefix = "telemetry"
  scripts_prefix   = "telemetry"

  landing_uri   = "s3://${module.landing.name}"
  lakehouse_uri = "s3://${module.lakehouse.name}/${local.lakehouse_prefix}"
  scripts_uri   = "s3://${module.scripts.name}/${local.scripts_prefix}"

  metrics_namespace = "TelemetryAssets"

  # What the pipeline has in S3, as KMS is told of it.
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
