# Databases only. The project makes each table from its contract: a table that Terraform had made too would have two
# makers, and one day two schemas ("target table has 3 column(s) but the inserted data has 15").

resource "aws_glue_catalog_database" "this" {
  for_each = var.databases

  name        = each.key
  description = "The ${each.key} tables of ${var.name}"
}
