# The job defines role, version and capacity. Each job run passes its own script, modules and Spark configuration, from
# the package of the code that starts it.

resource "aws_glue_job" "this" {
  #checkov:skip=CKV_AWS_195: A security configuration would encrypt and rename Glue's log groups, which all jobs of the account share. The buckets encrypt the data.
  count = local.use_glue ? 1 : 0

  name              = local.glue_job_name
  description       = "Remote steps of ${var.name}, started by the project"
  role_arn          = aws_iam_role.job[0].arn
  glue_version      = "5.1"
  worker_type       = var.glue_worker_type
  number_of_workers = var.glue_workers
  execution_class   = var.glue_execution_class
  timeout           = var.remote_timeout_minutes
  # The project retries steps itself.
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
