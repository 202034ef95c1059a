terraform {
  required_version = ">= 1.11"

  required_providers {
    # This is the pin: no lock file is committed, as the README says.
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ Project = "telemetry_assets", Lakehouse = var.name }, var.tags)
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}
