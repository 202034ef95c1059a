provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ Project = "telemetry_assets", Lakehouse = var.name }, var.tags)
  }
}
