# Alarms on the project's metrics (see docs/operating.md) and a budget of the account. All of them notify one SNS topic.

locals {
  alarms = {
    uploads-wait = {
      metric      = "OldestUploadSeconds"
      statistic   = "Minimum"
      threshold   = var.upload_wait_minutes * 60
      description = "An upload has been waiting for more than ${var.upload_wait_minutes} minutes. Check the sensor `uploads` and the latest runs of `ingest`."
    }
    uploads-not-taken = {
      metric      = "UploadsNotTaken"
      statistic   = "Minimum"
      threshold   = 0
      description = "Some uploads cannot be processed without manual action. `telemetry-assets doctor` lists them with the reasons."
    }
    gold-is-behind = {
      metric      = "GoldBehindSeconds"
      statistic   = "Minimum"
      threshold   = var.gold_behind_minutes * 60
      description = "A Gold table lacks rows that have been in Bronze for more than ${var.gold_behind_minutes} minutes, or no metrics are sent because Dagster's daemon is down or its sensor `metrics` fails. Check the latest runs of `ingest`."
      # A pipeline that is down sends no metrics.
      missing = "breaching"
    }
    documents-rejected = {
      metric      = "RejectedDocuments"
      statistic   = "Maximum"
      threshold   = var.rejected_documents_per_hour
      description = "More than ${var.rejected_documents_per_hour} documents were rejected within an hour. `telemetry-assets show bronze.rejected_documents` lists them with the reasons."
    }
  }

  remote_alarms = {
    remote-runs-fail = {
      metric      = "RemoteRunsFailed"
      statistic   = "Maximum"
      threshold   = 0
      description = "A remote run failed within the last hour. Its Dagster run shows the last lines of the driver's log and a link to it."
    }
    remote-run-is-long = {
      metric      = "LongestRemoteRunSeconds"
      statistic   = "Minimum"
      threshold   = var.remote_run_minutes * 60
      description = "A remote run has been active for more than ${var.remote_run_minutes} minutes. docs/spark.md describes how to choose its size."
    }
  }
}

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26: Encrypted if a KMS key is configured. CloudWatch cannot publish to a topic that is encrypted with the AWS managed key.
  name              = "${var.name}-alarms"
  kms_master_key_id = local.kms_key_arn
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

data "aws_iam_policy_document" "alarms" {
  statement {
    sid       = "AlarmsAndBudgets"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

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
}

resource "aws_sns_topic_subscription" "alarms" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = merge(local.alarms, var.engine == "embedded" ? {} : local.remote_alarms)

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = local.metrics_namespace
  metric_name         = each.value.metric
  dimensions          = { Lakehouse = local.lakehouse_uri }
  statistic           = each.value.statistic
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = lookup(each.value, "missing", "ignore")
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# The budget covers the whole account: a budget by tag is empty until the tag is activated in the billing console.

resource "aws_budgets_budget" "this" {
  count = var.monthly_budget_usd == null ? 0 : 1

  name         = "${var.name}-${var.region}"
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  notification {
    comparison_operator       = "GREATER_THAN"
    notification_type         = "ACTUAL"
    threshold                 = 80
    threshold_type            = "PERCENTAGE"
    subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
  }

  notification {
    comparison_operator       = "GREATER_THAN"
    notification_type         = "FORECASTED"
    threshold                 = 100
    threshold_type            = "PERCENTAGE"
    subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
  }

  depends_on = [aws_sns_topic_policy.alarms]
}
