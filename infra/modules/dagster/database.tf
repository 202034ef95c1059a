# The database of Dagster's run and event history. Losing it loses no rows: the tables show what remains to be done.

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

# RDS would create these log groups itself, without a retention period.

resource "aws_cloudwatch_log_group" "database" {
  #checkov:skip=CKV_AWS_158: Encrypted with a KMS key if one is configured.
  #checkov:skip=CKV_AWS_338: The retention period is configurable (logs_days).
  for_each = local.database_logs

  name              = "/aws/rds/instance/${local.family}/${each.key}"
  retention_in_days = var.logs_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_157: Multi-AZ is configurable (database_multi_az). Losing this database loses no rows.
  #checkov:skip=CKV_AWS_293: Configurable (deletion_protection), enabled by default.
  #checkov:skip=CKV_AWS_118: Enhanced monitoring requires another role. The standard RDS metrics are sufficient for a database of a few megabytes.
  #checkov:skip=CKV_AWS_161: Dagster authenticates with the password that RDS manages in Secrets Manager.
  #checkov:skip=CKV_AWS_353: The standard RDS metrics are sufficient, as for CKV_AWS_118.
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
  skip_final_snapshot             = true # Losing this database loses no rows.
  enabled_cloudwatch_logs_exports = local.database_logs

  depends_on = [aws_cloudwatch_log_group.database]
}

# By default, RDS rotates the password every seven days. ECS reads it only when a task starts, so Dagster cannot connect
# after a rotation until its task is restarted. 1,000 days is the longest interval that Secrets Manager supports.

resource "aws_secretsmanager_secret_rotation" "database" {
  #checkov:skip=CKV_AWS_304: After each rotation, Dagster's task has to be restarted; see above.
  secret_id          = aws_db_instance.this.master_user_secret[0].secret_arn
  rotate_immediately = false

  rotation_rules {
    automatically_after_days = 1000
  }
}
