# Databases only. The project creates the tables from its contracts. If Terraform created them too, each schema would be
# defined twice, and the two definitions could diverge.

resource "aws_glue_catalog_database" "this" {
  for_each = var.databases

  name        = each.key
  description = "The ${each.key} tables of ${var.name}"
}
