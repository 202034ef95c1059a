# The buckets. Temporary objects (scripts and logs, query results, access logs) have buckets of their own.

module "landing" {
  source = "./modules/bucket"

  name            = "${var.name}-landing-${local.suffix}"
  kms_key_arn     = local.kms_key_arn
  noncurrent_days = var.landing_noncurrent_days
  log_bucket      = module.access_logs.name
  force_destroy   = var.delete_data_on_destroy

  # Terraform destroys the bucket before the key, so the key exists as long as data that it encrypts.
  depends_on = [aws_kms_key.this]
}

module "lakehouse" {
  source = "./modules/bucket"

  name            = "${var.name}-lakehouse-${local.suffix}"
  kms_key_arn     = local.kms_key_arn
  noncurrent_days = var.lakehouse_noncurrent_days
  log_bucket      = module.access_logs.name
  force_destroy   = var.delete_data_on_destroy

  # Tables (bronze/, silver/, gold/), the state of ingestion (ingestion/) and the archive do not expire. The project
  # deletes archived uploads itself (archive_retention_days), because only it knows which ones are in the tables.
  rules = {
    archive = {
      prefix                 = "${local.lakehouse_prefix}/archive/"
      instant_retrieval_days = var.archive_instant_retrieval_days
    }
    remote-steps = {
      prefix          = "${local.lakehouse_prefix}/remote/"
      expiration_days = var.remote_steps_days
    }
  }

  # The key: see above. The databases: they remain in the catalog as long as the bucket cannot be destroyed, because it
  # contains tables.
  depends_on = [aws_kms_key.this, aws_glue_catalog_database.this]
}

module "scripts" {
  source = "./modules/bucket"

  name            = "${var.name}-scripts-${local.suffix}"
  kms_key_arn     = local.kms_key_arn
  noncurrent_days = 7
  log_bucket      = module.access_logs.name
  force_destroy   = true # `make package` uploads the packages again.

  # Packages do not expire: the package in use can be as old as the installed version of the project.
  rules = {
    logs = {
      prefix          = "${local.scripts_prefix}/logs/"
      expiration_days = var.logs_days
    }
  }
}

module "query_results" {
  source = "./modules/bucket"

  name            = "${var.name}-results-${local.suffix}"
  kms_key_arn     = local.kms_key_arn
  noncurrent_days = 1
  log_bucket      = module.access_logs.name
  force_destroy   = true # Results can be reproduced by running the query again.

  expiration_days = var.query_results_days
}

module "access_logs" {
  source = "./modules/bucket"

  name             = "${var.name}-access-${local.suffix}"
  kms_key_arn      = null # S3 delivers access logs only to buckets with SSE-S3 encryption.
  noncurrent_days  = 1
  expiration_days  = var.logs_days
  logs_requests    = false
  force_destroy    = var.delete_data_on_destroy
  policy_documents = [data.aws_iam_policy_document.access_logs.json]
}

data "aws_iam_policy_document" "access_logs" {
  statement {
    sid       = "S3ServerAccessLogs"
    actions   = ["s3:PutObject"]
    resources = ["arn:${local.partition}:s3:::${var.name}-access-${local.suffix}/*"]

    principals {
      type        = "Service"
      identifiers = ["logging.s3.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}
