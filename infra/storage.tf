# Five buckets: uploads wait in one, the lakehouse is another, and what is only needed for a while is kept from both.

module "landing" {
  source = "./modules/bucket"

  name            = "${var.name}-landing-${local.suffix}"
  kms_key_arn     = local.kms_key_arn
  noncurrent_days = var.landing_noncurrent_days
  log_bucket      = module.access_logs.name
  force_destroy   = var.delete_data_on_destroy

  # What depends is destroyed first: no key goes while there is something that only it decrypts.
  depends_on = [aws_kms_key.this]
}

module "lakehouse" {
  source = "./modules/bucket"

  name            = "${var.name}-lakehouse-${local.suffix}"
  kms_key_arn     = local.kms_key_arn
  noncurrent_days = var.lakehouse_noncurrent_days
  log_bucket      = module.access_logs.name
  force_destroy   = var.delete_data_on_destroy

  # Tables (bronze/, silver/, gold/) and the state of ingestion (ingestion/) have no rule: what is there is needed.
  rules = {
    archive = {
      prefix                 = "${local.lakehouse_prefix}/archive/"
      instant_retrieval_days = var.archive_instant_retrieval_days
      expiration_days        = var.archive_expiration_days
    }
    remote-steps = {
      prefix          = "${local.lakehouse_prefix}/remote/"
      expiration_days = var.remote_steps_days
    }
  }

  # As above. While the bucket cannot be destroyed, because it holds tables, the catalog keeps them too.
  depends_on = [aws_kms_key.this, aws_glue_catalog_database.this]
}

module "scripts" {
  source = "./modules/bucket"

  name            = "${var.name}-scripts-${local.suffix}"
  kms_key_arn     = local.kms_key_arn
  noncurrent_days = 7
  log_bucket      = module.access_logs.name
  force_destroy   = true # `make package` makes all of it anew.

  # Packages have no rule: the one that is in use is as old as the last update of the project.
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
  force_destroy   = true # A query makes them anew.

  expiration_days = var.query_results_days
}

module "access_logs" {
  source = "./modules/bucket"

  name             = "${var.name}-access-${local.suffix}"
  kms_key_arn      = null # S3 delivers logs only to a bucket that it encrypts with its own keys.
  noncurrent_days  = 1
  expiration_days  = var.logs_days
  logs_requests    = false
  force_destroy    = var.delete_data_on_destroy
  policy_documents = [data.aws_iam_policy_document.access_logs.json]
}

data "aws_iam_policy_document" "access_logs" {
  statement {
    sid       = "S3DeliversLogs"
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
