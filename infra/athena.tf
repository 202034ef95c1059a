# The workgroup and saved queries for analysts, who query Gold.

resource "aws_athena_workgroup" "this" {
  name          = var.name
  description   = "Queries of the Gold tables; each may scan ${var.athena_scan_limit_gb} GB at most"
  force_destroy = true # Deletes saved queries and the query history.

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = floor(var.athena_scan_limit_gb * 1024 * 1024 * 1024)

    engine_version {
      selected_engine_version = "Athena engine version 3"
    }

    result_configuration {
      output_location = "s3://${module.query_results.name}/"

      encryption_configuration {
        encryption_option = local.kms_key_arn == null ? "SSE_S3" : "SSE_KMS"
        kms_key_arn       = local.kms_key_arn
      }
    }
  }
}

resource "aws_athena_named_query" "this" {
  for_each = {
    car_current_state       = "Cars whose insurance has expired or soon will"
    fuel_efficiency_monthly = "Litres per 100 km by model and month"
    performance_alerts      = "Critical alerts of the last 30 days by car"
  }

  name        = each.key
  description = each.value
  workgroup   = aws_athena_workgroup.this.id
  database    = aws_glue_catalog_database.this["gold"].name
  query       = file("${path.module}/queries/${each.key}.sql")
}
