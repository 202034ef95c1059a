# The role that remote Spark runs as. What it may do is in policies.tf, beside everybody else's.

resource "aws_iam_role" "job" {
  count = length(var.compute) > 0 ? 1 : 0

  name                 = "${var.name}-job-${var.region}"
  description          = "Steps of ${var.name} in EMR Serverless and Glue"
  assume_role_policy   = data.aws_iam_policy_document.job_trust.json
  permissions_boundary = var.permissions_boundary_arn
}

data "aws_iam_policy_document" "job_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [for service in var.compute : { emr_serverless = "emr-serverless.amazonaws.com", glue = "glue.amazonaws.com" }[service]]
    }

    # Another account's application cannot be given this role.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role_policy_attachment" "job" {
  count = length(var.compute) > 0 ? 1 : 0

  role       = aws_iam_role.job[0].name
  policy_arn = aws_iam_policy.job[0].arn
}

resource "aws_iam_role_policy_attachment" "orchestrator" {
  count = var.dagster_role_name == null ? 0 : 1

  role       = var.dagster_role_name
  policy_arn = aws_iam_policy.orchestrator.arn
}
