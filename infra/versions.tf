terraform {
  required_version = ">= 1.11"

  required_providers {
    # No lock file is committed: it would hold the hashes of whichever platform wrote it, and refuse every other one.
    # This is the pin; `terraform init` writes a lock file of your own, to be kept beside your state's configuration.
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
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
