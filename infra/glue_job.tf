# A frame: script, modules and Spark's configuration come with each start, from the package of the code that starts it.

resource "aws_glue_job" "this" {
  #checkov:skip=CKV_AWS_195: A security configuration would encrypt Glue's own log groups, which all jobs of the account share, and would rename them. Data is encrypted by the buckets.
  count = local.use_glue ? 1 : 0

  name              = local.glue_job_name
  description       = "Steps of ${var.name}; the project starts it"
  role_arn          = aws_iam_role.job[0].arn
  glue_version      = "5.1"
  worker_type       = var.glue_worker_type
  number_of_workers = var.glue_workers
  execution_class   = var.glue_execution_class
  timeout           = var.remote_timeout_minutes
  # The project tries again by itself, where that helps.
  max_retries = 0

  command {
    name            = "glueetl"
    python_version  = "3"
    script_location = "${local.scripts_uri}/packages/entrypoint.py"
  }

  execution_property {
    max_concurrent_runs = var.glue_max_concurrent_runs
  }

  default_arguments = {
    "--datalake-formats"    = "iceberg"
    "--enable-auto-scaling" = "true"
  }
}
