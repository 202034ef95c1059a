# Glue's table optimizers, for accounts that maintain all Iceberg tables with them. The project maintains its tables itself
# and works beside them: docs/operating.md says which of the two to use.

locals {
  # The tables of telemetry_assets/tables.
  tables = {
    bronze = ["car_telemetry", "rejected_documents", "uploads"]
    silver = ["car_telemetry"]
    gold   = ["car_current_state", "fuel_efficiency_monthly", "performance_alerts"]
  }

  optimizers = !var.table_optimizers ? {} : merge([
    for database, tables in local.tables : merge([
      for table in tables : {
        for type in ["compaction", "retention", "orphan_file_deletion"] :
        "${database}.${table}.${type}" => { database = database, table = table, type = type }
      }
    ]...)
  ]...)
}

resource "aws_glue_catalog_table_optimizer" "this" {
  for_each = local.optimizers

  catalog_id    = local.account
  database_name = each.value.database
  table_name    = each.value.table
  type          = each.value.type

  configuration {
    role_arn = aws_iam_role.optimizer[0].arn
    enabled  = true

    dynamic "retention_configuration" {
      for_each = each.value.type == "retention" ? [1] : []

      content {
        iceberg_configuration {
          snapshot_retention_period_in_days = 5
          number_of_snapshots_to_retain     = 20
          clean_expired_files               = true
        }
      }
    }

    dynamic "orphan_file_deletion_configuration" {
      for_each = each.value.type == "orphan_file_deletion" ? [1] : []

      content {
        iceberg_configuration {
          orphan_file_retention_period_in_days = 3
        }
      }
    }
  }

  depends_on = [aws_iam_role_policy_attachment.optimizer]
}
