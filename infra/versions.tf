terraform {
  required_version = ">= 1.11"

  required_providers {
    # No lock file is committed (see README.md), so the exact version is pinned here.
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}
