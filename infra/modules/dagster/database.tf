# Dagster's history. Losing it loses no row: what is left to do is read from the tables.

resource "aws_db_subnet_group" "this" {
  name       = local.family
  subnet_ids = var.placement.subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name   = local.family
  family = "postgres16"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
}

# RDS would make them itself, and keep them for ever.

resource "aws_cloudwatch_log_group" "database" {
  #checkov:skip=CKV_AWS_158: Encrypted with the account's key where it has one.
  #checkov:skip=CKV_AWS_338: How long logs are kept is the account's decision (logs_days).
  for_each = local.database_logs

  name              = "/aws/rds/instance/${local.family}/${each.key}"
  retention_in_days = var.logs_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_157: A second zone for a history that can be lost is the account's decision (database_multi_az).
  #checkov:skip=CKV_AWS_293: The account's decision (deletion_protection), on unless it says otherwise.
  #checkov:skip=CKV_AWS_118: Enhanced monitoring asks for a role of its own; a database of some megabytes is watched well enough by RDS's metrics.
  #checkov:skip=CKV_AWS_161: Dagster signs in with the password that RDS keeps in Secrets Manager.
  #checkov:skip=CKV_AWS_353: As of enhanced monitoring.
  identifier     = local.family
  db_name        = "dagster"
  engine         = "postgres"
  engine_version = "16"
  instance_class = var.placement.database_class
  multi_az       = var.placement.database_multi_az

  allocated_storage     = 20
  max_allocated_storage = 100
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  username                      = "dagster"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = var.kms_key_arn

  db_subnet_group_name   = aws_db_subnet_group.this.name
  parameter_group_name   = aws_db_parameter_group.this.name
  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false

  auto_minor_version_upgrade      = true
  backup_retention_period         = 7
  copy_tags_to_snapshot           = true
  deletion_protection             = var.placement.deletion_protection
  skip_final_snapshot             = true # As above: losing it loses no row.
  enabled_cloudwatch_logs_exports = local.database_logs

  depends_on = [aws_cloudwatch_log_group.database]
}

# RDS would change the password every seven days, and ECS brings it at a task's start only: each time Dagster would be
# shut out until somebody starts its task anew. A thousand days is the longest that there is.

resource "aws_secretsmanager_secret_rotation" "database" {
  #checkov:skip=CKV_AWS_304: As above: each rotation would shut Dagster out.
  secret_id          = aws_db_instance.this.master_user_secret[0].secret_arn
  rotate_immediately = false

  rotation_rules {
    automatically_after_days = 1000
  }
}
