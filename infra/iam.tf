# The role of remote Spark jobs, and the attachments of policies. All policies are in iam_policies.tf.

resource "aws_iam_role" "job" {
  count = length(var.compute) > 0 ? 1 : 0

  name                 = "${var.name}-job-${var.region}"
  description          = "Remote steps of ${var.name} in EMR Serverless and Glue"
  assume_role_policy   = data.aws_iam_policy_document.job_trust.json
  permissions_boundary = var.permissions_boundary_arn
}

data "aws_iam_policy_document" "job_trust" {
  dynamic "statement" {
    for_each = toset(var.compute)

    content {
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = [{ emr_serverless = "emr-serverless.amazonaws.com", glue = "glue.amazonaws.com" }[statement.value]]
      }

      # Prevents applications of other accounts from using this role. The condition is not set for Glue: AWS does not
      # document aws:SourceAccount for it, and Glue jobs can only use roles of their own account.
      dynamic "condition" {
        for_each = statement.value == "emr_serverless" ? [local.account] : []

        content {
          test     = "StringEquals"
          variable = "aws:SourceAccount"
          values   = [condition.value]
        }
      }
    }
  }
}

resource "aws_iam_role_policy_attachment" "job" {
  count = length(var.compute) > 0 ? 1 : 0

  role       = aws_iam_role.job[0].name
  policy_arn = aws_iam_policy.job[0].arn
}

resource "aws_iam_role" "optimizer" {
  count = var.table_optimizers ? 1 : 0

  name                 = "${var.name}-optimizer-${var.region}"
  description          = "Glue table optimizers of ${var.name}"
  assume_role_policy   = data.aws_iam_policy_document.optimizer_trust.json
  permissions_boundary = var.permissions_boundary_arn
}

# Glue uses this role only for tables of its own account.
data "aws_iam_policy_document" "optimizer_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["glue.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy_attachment" "optimizer" {
  count = var.table_optimizers ? 1 : 0

  role       = aws_iam_role.optimizer[0].name
  policy_arn = aws_iam_policy.optimizer[0].arn
}

resource "aws_iam_role_policy_attachment" "orchestrator" {
  count = var.dagster_role_name == null ? 0 : 1

  role       = var.dagster_role_name
  policy_arn = aws_iam_policy.orchestrator.arn
}
