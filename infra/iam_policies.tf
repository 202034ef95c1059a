# Who may do what. No statement has a wildcard for its action; one for its resource only where the API knows no other,
# and a comment says so. The key is for what is in each one's buckets: S3 tells KMS the bucket, or the object where that
# has a key of its own (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html).

# Vehicles, or whatever stands for them: they may leave uploads, and not even look at them again.

resource "aws_iam_policy" "uploader" {
  name        = "${var.name}-uploader-${var.region}"
  description = "Leaves uploads in the landing location of ${var.name}"
  policy      = data.aws_iam_policy_document.uploader.json
}

data "aws_iam_policy_document" "uploader" {
  statement {
    sid       = "LeaveUploads"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${module.landing.arn}/*"]
  }

  dynamic "statement" {
    for_each = local.kms_key_arn[*]

    content {
      sid = "Encrypt"
      # An upload in parts reads what it has written: https://repost.aws/knowledge-center/s3-large-file-encryption-kms-key
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

# Whatever runs Dagster or the command line.

resource "aws_iam_policy" "orchestrator" {
  name        = "${var.name}-orchestrator-${var.region}"
  description = "Runs the pipeline of ${var.name}"
  policy      = data.aws_iam_policy_document.orchestrator.json
}

data "aws_iam_policy_document" "orchestrator" {
  statement {
    sid       = "LookAtUploads"
    actions   = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning"]
    resources = [module.landing.arn]
  }

  statement {
    sid       = "TakeUploads"
    actions   = ["s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion"]
    resources = ["${module.landing.arn}/*"]
  }

  statement {
    sid       = "LookAtTheLakehouse"
    actions   = ["s3:ListBucket"]
    resources = [module.lakehouse.arn]

    # S3 holds an object's key against it too, before it says of a missing one that it is missing, and not that it is
    # forbidden: https://github.com/ceph/ceph/pull/68577 copies that, https://github.com/kopia/kopia/pull/3072 met it.
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.lakehouse_prefix}/*"]
    }
  }

  statement {
    sid       = "KeepTheLakehouse"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${module.lakehouse.arn}/${local.lakehouse_prefix}/*"]
  }

  statement {
    sid       = "KeepTheCatalog"
    actions   = ["glue:GetDatabase", "glue:GetTable", "glue:CreateTable", "glue:UpdateTable"]
    resources = local.catalog_arns
  }

  statement {
    sid = "TellMetrics"
    # CloudWatch knows no resource for metrics: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html
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
      sid       = "LookAtScripts"
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
      sid       = "KeepPackages"
      actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
      resources = ["${module.scripts.arn}/${local.scripts_prefix}/packages/*"]
    }
  }

  dynamic "statement" {
    for_each = local.use_emr_serverless ? ["emr_serverless"] : []

    content {
      sid       = "ReadDriversLogsInS3"
      actions   = ["s3:GetObject"]
      resources = ["${module.scripts.arn}/${local.scripts_prefix}/logs/*"]
    }
  }

  dynamic "statement" {
    for_each = local.use_emr_serverless ? ["emr_serverless"] : []

    content {
      sid = "StartAndFollowInEmrServerless"
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
      sid       = "LetStepsRunAsTheJobRole"
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
      sid       = "StartAndFollowInGlue"
      actions   = ["glue:GetJob", "glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"]
      resources = [local.glue_job_arn]
    }
  }

  dynamic "statement" {
    for_each = local.use_glue ? ["glue"] : []

    content {
      sid       = "ReadDriversLogsInCloudWatch"
      actions   = ["logs:GetLogEvents"]
      resources = ["arn:${local.partition}:logs:${var.region}:${local.account}:log-group:/aws-glue/jobs/error:log-stream:*"]
    }
  }
}

# The steps themselves, in remote Spark.

resource "aws_iam_policy" "job" {
  count = length(var.compute) > 0 ? 1 : 0

  name        = "${var.name}-job-${var.region}"
  description = "Steps of ${var.name}"
  policy      = data.aws_iam_policy_document.job.json
}

data "aws_iam_policy_document" "job" {
  # A large backlog is parsed from the archive; from the landing location where a copy is gone from there meanwhile.
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

  # The services' own file systems list where they look for a file.
  statement {
    sid       = "FindPackages"
    actions   = ["s3:ListBucket"]
    resources = [module.scripts.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.scripts_prefix}/packages/*"]
    }
  }

  statement {
    sid       = "LookAtTheLakehouse"
    actions   = ["s3:ListBucket"]
    resources = [module.lakehouse.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.lakehouse_prefix}/*"]
    }
  }

  statement {
    sid       = "KeepTheLakehouse"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${module.lakehouse.arn}/${local.lakehouse_prefix}/*"]
  }

  statement {
    sid       = "KeepTheCatalog"
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
      sid       = "LeaveLogsInS3"
      actions   = ["s3:PutObject"]
      resources = ["${module.scripts.arn}/${local.scripts_prefix}/logs/*"]
    }
  }

  dynamic "statement" {
    for_each = local.use_glue ? ["glue"] : []

    content {
      sid     = "LeaveLogsInCloudWatch"
      actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
      # Glue's own groups, which all jobs of the account write to.
      resources = ["arn:${local.partition}:logs:${var.region}:${local.account}:log-group:/aws-glue/jobs/*"]
    }
  }
}

# Analysts: Gold, and nothing before it, by Athena or by any engine that reads the Data Catalog and S3.

resource "aws_iam_policy" "analyst" {
  name        = "${var.name}-analyst-${var.region}"
  description = "Reads the Gold tables of ${var.name}"
  policy      = data.aws_iam_policy_document.analyst.json
}

data "aws_iam_policy_document" "analyst" {
  statement {
    sid       = "ReadGoldsEntries"
    actions   = ["glue:GetDatabase", "glue:GetDatabases", "glue:GetTable", "glue:GetTables"]
    resources = ["${local.glue_arn}:catalog", "${local.glue_arn}:database/gold", "${local.glue_arn}:table/gold/*"]
  }

  statement {
    sid = "StartWhereAthenaStarts"
    # Athena looks at the database default before it looks at any other: https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html
    actions   = ["glue:GetDatabase"]
    resources = ["${local.glue_arn}:database/default"]
  }

  statement {
    sid = "FindTheWorkgroup"
    # Athena knows no resource for lists: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonathena.html
    actions   = ["athena:ListWorkGroups", "athena:ListDataCatalogs"]
    resources = ["*"]
  }

  statement {
    sid       = "ReadGoldsFiles"
    actions   = ["s3:GetObject"]
    resources = ["${module.lakehouse.arn}/${local.lakehouse_prefix}/gold/*"]
  }

  statement {
    sid       = "ListGoldsFiles"
    actions   = ["s3:ListBucket"]
    resources = [module.lakehouse.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.lakehouse_prefix}/gold/*"]
    }
  }

  statement {
    sid = "Query"
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
    sid       = "SeeTheCatalogInAthena"
    actions   = ["athena:GetDataCatalog", "athena:GetDatabase", "athena:ListDatabases", "athena:GetTableMetadata", "athena:ListTableMetadata"]
    resources = ["arn:${local.partition}:athena:${var.region}:${local.account}:datacatalog/AwsDataCatalog"]
  }

  statement {
    sid       = "KeepResults"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${module.query_results.arn}/*"]
  }

  statement {
    sid       = "FindResults"
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
