# The effect of each option.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name   = "fleet"
  region = "eu-central-1"
}

run "by_default_there_is_emr_serverless_alone" {
  assert {
    condition     = length(aws_emrserverless_application.this) == 1 && length(aws_glue_job.this) == 0
    error_message = "there must be an EMR Serverless application and no Glue job"
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_ENGINE=emr_serverless\n") && strcontains(output.dotenv, "TELEMETRY_EMR_APPLICATION_ID=00f1a2b3c4d5e6f7\n")
    error_message = "the settings must name the application"
  }

  assert {
    condition     = !strcontains(output.dotenv, "GLUE_JOB") && !strcontains(output.dotenv, "KMS")
    error_message = "the settings must not name resources that do not exist"
  }

  assert {
    condition     = length(aws_kms_key.this) == 0 && length(module.dagster) == 0 && output.dagster == null
    error_message = "there must be no key and no Dagster"
  }

  assert {
    condition = (
      one(aws_emrserverless_application.this[0].auto_start_configuration).enabled
      && one(aws_emrserverless_application.this[0].auto_stop_configuration).idle_timeout_minutes == 5
      && one(aws_emrserverless_application.this[0].maximum_capacity).cpu == "40 vCPU"
    )
    error_message = "the application must start and stop automatically, with a maximum capacity"
  }
}

run "names_contain_account_and_region" {
  assert {
    condition     = output.landing_uri == "s3://fleet-landing-111122223333-eu-central-1"
    error_message = "wrong location of the landing bucket"
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_LAKEHOUSE_URI=s3://fleet-lakehouse-111122223333-eu-central-1/telemetry\n")
    error_message = "wrong location of the lakehouse"
  }

  assert {
    condition     = toset([for one in aws_glue_catalog_database.this : one.name]) == toset(["bronze", "silver", "gold"])
    error_message = "wrong databases"
  }
}

run "the_longest_name_in_the_longest_region_is_a_valid_bucket_name" {
  variables {
    name   = "a23456789012345678-z"
    region = "ap-southeast-1"
  }

  assert {
    condition     = alltrue([for one in [module.landing, module.lakehouse, module.scripts, module.query_results, module.access_logs] : length(one.name) <= 63])
    error_message = "a bucket name must have at most 63 characters"
  }
}

run "without_a_service_there_are_no_resources_of_remote_steps" {
  variables {
    compute = []
    engine  = "embedded"
  }

  assert {
    condition     = length(aws_iam_role.job) == 0 && length(aws_iam_policy.job) == 0
    error_message = "there must be no job role"
  }

  assert {
    condition     = !strcontains(output.dotenv, "SCRIPTS") && strcontains(output.dotenv, "TELEMETRY_ENGINE=embedded\n")
    error_message = "there must be no settings of remote steps"
  }

  assert {
    condition     = !contains(flatten([for one in data.aws_iam_policy_document.orchestrator.statement : one.actions]), "iam:PassRole")
    error_message = "the orchestrator must not pass a role"
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset(["uploads-wait", "uploads-not-taken", "gold-is-behind", "documents-rejected"])
    error_message = "there must be no alarms on remote runs"
  }
}

run "a_service_that_is_not_the_engine_has_no_alarms" {
  variables {
    engine = "embedded"
  }

  assert {
    condition     = length(aws_emrserverless_application.this) == 1 && !contains(keys(aws_cloudwatch_metric_alarm.this), "remote-runs-fail")
    error_message = "there must be no alarms on remote runs while the engine is embedded"
  }
}

run "further_settings_are_in_the_dotenv_file_and_in_dagster" {
  variables {
    settings = { TELEMETRY_SENSOR_INTERVAL_SECONDS = "60", TELEMETRY_REMOTE_SIZES = "{}" }
    dagster = {
      vpc_id             = "vpc-1"
      subnet_ids         = ["subnet-1", "subnet-2"]
      image_tag          = "1.2.3"
      client_cidr_blocks = []
    }
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_SENSOR_INTERVAL_SECONDS=60\n") && strcontains(output.dotenv, "TELEMETRY_REMOTE_SIZES={}\n")
    error_message = "the variable settings must override generated settings"
  }

  assert {
    condition     = local.settings["TELEMETRY_SENSOR_INTERVAL_SECONDS"] == "60"
    error_message = "Dagster on Fargate must have the same settings"
  }
}

run "temporary_buckets_have_one_expiration_rule" {
  assert {
    condition     = toset(module.query_results.rules) == toset(["leftovers"]) && toset(module.access_logs.rules) == toset(["leftovers"])
    error_message = "there must not be two rules for the same objects"
  }

  assert {
    condition     = module.query_results.expiration_days == 7 && module.access_logs.expiration_days == 90
    error_message = "objects must expire after the configured days"
  }
}

run "glue_alone" {
  variables {
    compute                  = ["glue"]
    engine                   = "glue"
    glue_workers             = 3
    glue_execution_class     = "FLEX"
    glue_max_concurrent_runs = 2
    remote_timeout_minutes   = 45
    remote_run_minutes       = 30
  }

  assert {
    condition = (
      aws_glue_job.this[0].glue_version == "5.1"
      && aws_glue_job.this[0].execution_class == "FLEX"
      && aws_glue_job.this[0].timeout == 45
      && aws_glue_job.this[0].execution_property[0].max_concurrent_runs == 2
      && aws_glue_job.this[0].default_arguments["--datalake-formats"] == "iceberg"
    )
    error_message = "the job must have the configured capacity"
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_REMOTE_SIZES={\"default\":{\"executors\":2,\"glue_worker_type\":\"G.1X\"}}\n")
    error_message = "steps must request the size of the job: a driver and two executors"
  }

  assert {
    condition     = length(aws_emrserverless_application.this) == 0 && !strcontains(output.dotenv, "EMR")
    error_message = "there must be no application"
  }

  assert {
    condition     = !contains(flatten([for one in data.aws_iam_policy_document.orchestrator.statement : one.actions]), "iam:PassRole")
    error_message = "the Glue job has its role, so no role must be passed"
  }
}

run "a_created_key_encrypts_everything" {
  variables {
    compute        = ["emr_serverless", "glue"]
    create_kms_key = true
  }

  assert {
    condition     = aws_kms_key.this[0].enable_key_rotation
    error_message = "key rotation must be enabled"
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == aws_kms_key.this[0].arn && strcontains(output.dotenv, "TELEMETRY_KMS_KEY_ID=${aws_kms_key.this[0].arn}\n")
    error_message = "alarms and the project must use the key"
  }

  assert {
    condition     = alltrue([for one in [data.aws_iam_policy_document.orchestrator, data.aws_iam_policy_document.job, data.aws_iam_policy_document.analyst, data.aws_iam_policy_document.uploader] : contains(flatten([for statement in one.statement : statement.actions]), "kms:GenerateDataKey")])
    error_message = "every policy must allow the key"
  }
}

run "an_existing_key_is_used" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/theirs"
  }

  assert {
    condition     = length(aws_kms_key.this) == 0 && strcontains(output.dotenv, "TELEMETRY_KMS_KEY_ID=arn:aws:kms:eu-central-1:111122223333:key/theirs\n")
    error_message = "no key must be created"
  }
}

run "an_archive_without_transition_has_no_rule" {
  variables {
    archive_instant_retrieval_days = null
    archive_retention_days         = 100
  }

  assert {
    condition     = toset(module.lakehouse.rules) == toset(["leftovers", "remote-steps"])
    error_message = "there must be no rule for the archive"
  }
}

run "the_project_deletes_old_uploads_and_rejected_documents" {
  variables {
    archive_retention_days  = 730
    rejected_retention_days = 365
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_ARCHIVE_RETENTION_DAYS=730\n") && strcontains(output.dotenv, "TELEMETRY_REJECTED_RETENTION_DAYS=365\n")
    error_message = "the settings must contain the retention"
  }
}

run "by_default_there_are_no_table_optimizers" {
  assert {
    condition     = length(aws_glue_catalog_table_optimizer.this) == 0 && length(aws_iam_role.optimizer) == 0
    error_message = "the project maintains the tables itself"
  }
}

run "table_optimizers_maintain_every_table" {
  variables {
    table_optimizers = true
    create_kms_key   = true
  }

  assert {
    condition     = length(aws_glue_catalog_table_optimizer.this) == 3 * 7
    error_message = "each table needs compaction, retention and removal of orphan files"
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_MAINTENANCE_SECONDS=0\n")
    error_message = "runs must not maintain the tables too"
  }

  assert {
    condition     = alltrue([for one in aws_glue_catalog_table_optimizer.this : one.configuration[0].enabled])
    error_message = "the optimizers must be enabled"
  }
}

run "without_a_budget" {
  variables {
    monthly_budget_usd = null
  }

  assert {
    condition     = length(aws_budgets_budget.this) == 0
    error_message = "there must be no budget"
  }
}

run "dagster_on_fargate" {
  variables {
    dagster = {
      vpc_id             = "vpc-1"
      subnet_ids         = ["subnet-1", "subnet-2"]
      image_tag          = "1.2.3"
      client_cidr_blocks = ["10.0.0.0/8"]
    }
  }

  assert {
    condition     = output.dagster.web_port == 3000 && output.dagster.cluster == "fleet-dagster"
    error_message = "the output must contain the cluster and the port"
  }
}

run "alarms_notify_the_topic_and_its_subscribers" {
  variables {
    alarm_emails        = ["one@example.com", "other@example.com"]
    upload_wait_minutes = 10
  }

  assert {
    condition     = length(aws_sns_topic_subscription.alarms) == 2
    error_message = "every address must have a subscription"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["uploads-wait"].threshold == 600
    error_message = "the threshold must be in seconds"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["gold-is-behind"].treat_missing_data == "breaching"
    error_message = "missing metrics must raise the alarm"
  }

  assert {
    condition = alltrue([for one in values(aws_cloudwatch_metric_alarm.this) :
      one.namespace == "TelemetryAssets" && one.dimensions["Lakehouse"] == local.lakehouse_uri && one.alarm_actions == toset([aws_sns_topic.alarms.arn])
    ])
    error_message = "every alarm must be on a metric of this lakehouse and notify the topic"
  }
}
