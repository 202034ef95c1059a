# A KMS key for data, alarms and logs, if create_kms_key is set.

resource "aws_kms_key" "this" {
  count = var.create_kms_key ? 1 : 0

  description             = "Uploads, tables and scripts of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key[0].json
}

resource "aws_kms_alias" "this" {
  count = var.create_kms_key ? 1 : 0

  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this[0].key_id
}

data "aws_iam_policy_document" "key" {
  count = var.create_kms_key ? 1 : 0

  #checkov:skip=CKV_AWS_109: The only resource of a key policy is its key. Without this statement, the key could not be managed.
  #checkov:skip=CKV_AWS_111: See CKV_AWS_109.
  #checkov:skip=CKV_AWS_356: See CKV_AWS_109.
  statement {
    sid       = "EnableIamPolicies"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }

  statement {
    sid       = "AlarmsAndBudgets"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }

  statement {
    sid       = "DagsterLogs"
    actions   = ["kms:Decrypt", "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${var.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values = [
        "arn:${local.partition}:logs:${var.region}:${local.account}:log-group:/${var.name}/*",
        "arn:${local.partition}:logs:${var.region}:${local.account}:log-group:/aws/rds/instance/${var.name}-dagster/*",
      ]
    }
  }
}
