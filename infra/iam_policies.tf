# No statement allows actions by a wildcard. A statement allows all resources only if its actions do not support
# resource-level permissions; a comment says so. Each policy allows the KMS key only for the buckets that it allows: the
# encryption context is the ARN of the object, or the ARN of the bucket if the bucket uses an S3 Bucket Key
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html).

# Producers: put uploads, but cannot read or list them.

resource "aws_iam_policy" "uploader" {
  name        = "${var.name}-uploader-${var.region}"
  description = "Leaves uploads in the landing location of ${var.name}"
  policy      = data.aws_iam_policy_document.uploader.json
}

data "aws_iam_policy_document" "uploader" {
  statement {
    sid       = "PutUploads"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${module.landing.arn}/*"]
  }

  dynamic "statement" {
    for_each = local.kms_key_arn[*]

    content {
      sid = "Encrypt"
      # A multipart upload also needs kms:Decrypt: https://repost.aws/knowledge-center/s3-large-file-encryption-kms-key
      actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values = [
          module.landing.arn,
          "${module.landing.arn}/*",
        ]
      }
    }
  }
}

# Orchestrator: the process that runs Dagster or the command line.

resource "aws_iam_policy" "orchestrator" {
  name        = "${var.name}-orchestrator-${var.region}"
  description = "Runs the pipeline of ${var.name}"
  policy      = data.aws_iam_policy_document.orchestrator.json
}

data "aws_iam_policy_document" "orchestrator" {
  statement {
    sid       = "ListUploads"
    actions   = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning"]
    resources = [module.landing.arn]
  }

  statement {
    sid       = "ReadAndDeleteUploads"
    actions   = ["s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion"]
    resources = ["${module.landing.arn}/*"]
  }

  statement {
    sid       = "ListLakehouse"
    actions   = ["s3:ListBucket"]
    resources = [module.lakehouse.arn]

    # This statement also decides how S3 answers GetObject for a missing key: 404 if the key matches this condition, 403
    # otherwise. See https://github.com/ceph/ceph/pull/68577 and https://github.com/kopia/kopia/pull/3072.
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.lakehouse_prefix}/*"]
    }
  }

  statement {
    sid       = "ReadAndWriteLakehouse"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${module.lakehouse.arn}/${local.lakehouse_prefix}/*"]
  }

  statement {
    sid       = "ReadAndWriteCatalog"
    actions   = ["glue:GetDatabase", "glue:GetTable", "glue:CreateTable", "glue:UpdateTable"]
    resources = local.catalog_arns
  }

  statement {
    sid = "PutMetrics"
    # PutMetricData does not support resource-level permissions: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [local.metrics_namespace]
    }
  }

  dynamic "statement" {
    for_each = local.kms_key_arn[*]

    content {
      sid       = "EncryptAndDecrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values   = local.pipeline_contents
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.compute) > 0 ? ["remote steps"] : []

    content {
      sid       = "ListScripts"
      actions   = ["s3:ListBucket"]
      resources = [module.scripts.arn]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = ["${local.scripts_prefix}/*"]
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.compute) > 0 ? ["remote steps"] : []

    content {
      sid       = "ReadAndWritePackages"
      actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
      resources = ["${module.scripts.arn}/${local.scripts_prefix}/packages/*"]
    }
  }

  dynamic "statement" {
    for_each = local.use_emr_serverless ? ["emr_serverless"] : []

    content {
      sid       = "ReadDriverLogsInS3"
      actions   = ["s3:GetObject"]
      resources = ["${module.scripts.arn}/${local.scripts_prefix}/logs/*"]
    }
  }

  dynamic "statement" {
    for_each = local.use_emr_serverless ? ["emr_serverless"] : []

    content {
      sid = "RunJobsInEmrServerless"
      actions = [
        "emr-serverless:GetApplication",
        "emr-serverless:StartJobRun",
        "emr-serverless:ListJobRuns",
        "emr-serverless:GetJobRun",
        "emr-serverless:CancelJobRun",
        "emr-serverless:TagResource",
      ]
      resources = [
        aws_emrserverless_application.this[0].arn,
        "${aws_emrserverless_application.this[0].arn}/jobruns/*",
      ]
    }
  }

  dynamic "statement" {
    for_each = local.use_emr_serverless ? ["emr_serverless"] : []

    content {
      sid       = "PassJobRole"
      actions   = ["iam:PassRole"]
      resources = [aws_iam_role.job[0].arn]

      condition {
        test     = "StringEquals"
        variable = "iam:PassedToService"
        values   = ["emr-serverless.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = local.use_glue ? ["glue"] : []

    content {
      sid       = "RunJobsInGlue"
      actions   = ["glue:GetJob", "glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"]
      resources = [local.glue_job_arn]
    }
  }

  dynamic "statement" {
    for_each = local.use_glue ? ["glue"] : []

    content {
      sid       = "ReadDriverLogsInCloudWatch"
      actions   = ["logs:GetLogEvents"]
      resources = ["arn:${local.partition}:logs:${var.region}:${local.account}:log-group:/aws-glue/jobs/error:log-stream:*"]
    }
  }
}

# Job: remote steps in EMR Serverless and Glue.

resource "aws_iam_policy" "job" {
  count = length(var.compute) > 0 ? 1 : 0

  name        = "${var.name}-job-${var.region}"
  description = "Steps of ${var.name}"
  policy      = data.aws_iam_policy_document.job.json
}

data "aws_iam_policy_document" "job" {
  # Remote steps read a large backlog from the archive, and from the landing location what is no longer in the archive.
  statement {
    sid       = "ReadUploads"
    actions   = ["s3:GetObject"]
    resources = ["${module.landing.arn}/*"]
  }

  statement {
    sid       = "ReadPackages"
    actions   = ["s3:GetObject"]
    resources = ["${module.scripts.arn}/${local.scripts_prefix}/packages/*"]
  }

  # The file systems of EMR Serverless and Glue list a prefix before they read a file below it.
  statement {
    sid       = "ListPackages"
    actions   = ["s3:ListBucket"]
    resources = [module.scripts.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.scripts_prefix}/packages/*"]
    }
  }

  statement {
    sid       = "ListLakehouse"
    actions   = ["s3:ListBucket"]
    resources = [module.lakehouse.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.lakehouse_prefix}/*"]
    }
  }

  statement {
    sid       = "ReadAndWriteLakehouse"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${module.lakehouse.arn}/${local.lakehouse_prefix}/*"]
  }

  statement {
    sid       = "ReadAndWriteCatalog"
    actions   = ["glue:GetDatabase", "glue:GetTable", "glue:UpdateTable"]
    resources = local.catalog_arns
  }

  dynamic "statement" {
    for_each = local.kms_key_arn[*]

    content {
      sid       = "EncryptAndDecrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values   = local.pipeline_contents
      }
    }
  }

  dynamic "statement" {
    for_each = local.use_emr_serverless ? ["emr_serverless"] : []

    content {
      sid       = "WriteLogsToS3"
      actions   = ["s3:PutObject"]
      resources = ["${module.scripts.arn}/${local.scripts_prefix}/logs/*"]
    }
  }

  dynamic "statement" {
    for_each = local.use_glue ? ["glue"] : []

    content {
      sid     = "WriteLogsToCloudWatch"
      actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
      # Glue's log groups, which all jobs of the account share.
      resources = ["arn:${local.partition}:logs:${var.region}:${local.account}:log-group:/aws-glue/jobs/*"]
    }
  }
}

# Glue table optimizers: https://docs.aws.amazon.com/glue/latest/dg/optimization-prerequisites.html

resource "aws_iam_policy" "optimizer" {
  count = var.table_optimizers ? 1 : 0

  name        = "${var.name}-optimizer-${var.region}"
  description = "Maintains the tables of ${var.name}"
  policy      = data.aws_iam_policy_document.optimizer.json
}

data "aws_iam_policy_document" "optimizer" {
  statement {
    sid       = "ListTables"
    actions   = ["s3:ListBucket"]
    resources = [module.lakehouse.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = [for database in keys(local.tables) : "${local.lakehouse_prefix}/${database}/*"]
    }
  }

  statement {
    sid       = "ReadAndWriteTables"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = [for database in keys(local.tables) : "${module.lakehouse.arn}/${local.lakehouse_prefix}/${database}/*"]
  }

  statement {
    sid       = "ReadAndWriteCatalog"
    actions   = ["glue:GetTable", "glue:UpdateTable"]
    resources = local.catalog_arns
  }

  statement {
    sid     = "WriteLogs"
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    # Log groups that all optimizers of the account share.
    resources = [
      for group in ["compaction", "retention", "orphan-file-deletion"] :
      "arn:${local.partition}:logs:${var.region}:${local.account}:log-group:/aws-glue/iceberg-${group}/logs:*"
    ]
  }

  dynamic "statement" {
    for_each = local.kms_key_arn[*]

    content {
      sid       = "EncryptAndDecrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values   = local.pipeline_contents
      }
    }
  }
}

# Analysts: read Gold only, through Athena or through any engine that reads the Data Catalog and S3.

resource "aws_iam_policy" "analyst" {
  name        = "${var.name}-analyst-${var.region}"
  description = "Reads the Gold tables of ${var.name}"
  policy      = data.aws_iam_policy_document.analyst.json
}

data "aws_iam_policy_document" "analyst" {
  statement {
    sid       = "ReadGoldCatalog"
    actions   = ["glue:GetDatabase", "glue:GetDatabases", "glue:GetTable", "glue:GetTables"]
    resources = ["${local.glue_arn}:catalog", "${local.glue_arn}:database/gold", "${local.glue_arn}:table/gold/*"]
  }

  statement {
    sid = "ReadDefaultDatabase"
    # Athena requires access to the database default: https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html
    actions   = ["glue:GetDatabase"]
    resources = ["${local.glue_arn}:database/default"]
  }

  statement {
    sid = "ListWorkgroups"
    # These actions do not support resource-level permissions: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonathena.html
    actions   = ["athena:ListWorkGroups", "athena:ListDataCatalogs"]
    resources = ["*"]
  }

  statement {
    sid       = "ReadGoldFiles"
    actions   = ["s3:GetObject"]
    resources = ["${module.lakehouse.arn}/${local.lakehouse_prefix}/gold/*"]
  }

  statement {
    sid       = "ListGoldFiles"
    actions   = ["s3:ListBucket"]
    resources = [module.lakehouse.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.lakehouse_prefix}/gold/*"]
    }
  }

  statement {
    sid = "RunQueries"
    actions = [
      "athena:StartQueryExecution",
      "athena:StopQueryExecution",
      "athena:GetQueryExecution",
      "athena:BatchGetQueryExecution",
      "athena:ListQueryExecutions",
      "athena:GetQueryResults",
      "athena:GetQueryResultsStream",
      "athena:GetQueryRuntimeStatistics",
      "athena:GetWorkGroup",
      "athena:GetNamedQuery",
      "athena:BatchGetNamedQuery",
      "athena:ListNamedQueries",
    ]
    resources = [aws_athena_workgroup.this.arn]
  }

  statement {
    sid       = "ReadAthenaCatalog"
    actions   = ["athena:GetDataCatalog", "athena:GetDatabase", "athena:ListDatabases", "athena:GetTableMetadata", "athena:ListTableMetadata"]
    resources = ["arn:${local.partition}:athena:${var.region}:${local.account}:datacatalog/AwsDataCatalog"]
  }

  statement {
    sid       = "ReadAndWriteResults"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${module.query_results.arn}/*"]
  }

  statement {
    sid       = "ListResults"
    actions   = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [module.query_results.arn]
  }

  dynamic "statement" {
    for_each = local.kms_key_arn[*]

    content {
      sid       = "EncryptAndDecrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values = [
          module.lakehouse.arn,
          "${module.lakehouse.arn}/*",
          module.query_results.arn,
          "${module.query_results.arn}/*",
        ]
      }
    }
  }
}
