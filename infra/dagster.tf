# Dagster on Fargate, if the variable dagster is set.

module "dagster" {
  source = "./modules/dagster"
  count  = var.dagster == null ? 0 : 1

  name                     = var.name
  region                   = var.region
  placement                = var.dagster
  settings                 = local.settings
  orchestrator_policy_arn  = aws_iam_policy.orchestrator.arn
  kms_key_arn              = local.kms_key_arn
  logs_days                = var.logs_days
  permissions_boundary_arn = var.permissions_boundary_arn
}
