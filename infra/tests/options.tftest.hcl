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
    error_message = "EMR Serverless, and no Glue job"
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_ENGINE=emr_serverless\n") && strcontains(output.dotenv, "TELEMETRY_EMR_APPLICATION_ID=00f1a2b3c4d5e6f7\n")
    error_message = "the settings name the application"
  }

  assert {
    condition     = !strcontains(output.dotenv, "GLUE_JOB") && !strcontains(output.dotenv, "KMS")
    error_message = "the settings name nothing that is not there"
  }

  assert {
    condition     = length(aws_kms_key.this) == 0 && length(module.dagster) == 0 && output.dagster == null
    error_message = "no key, and no Dagster"
  }

  assert {
    condition = (
      one(aws_emrserverless_application.this[0].auto_start_configuration).enabled
      && one(aws_emrserverless_application.this[0].auto_stop_configuration).idle_timeout_minutes == 5
      && one(aws_emrserverless_application.this[0].maximum_capacity).cpu == "40 vCPU"
    )
    error_message = "it starts and stops by itself, within limits"
  }
}

run "names_are_of_this_account_and_region" {
  assert {
    condition     = output.landing_uri == "s3://fleet-landing-111122223333-eu-central-1"
    error_message = "the landing bucket"
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_LAKEHOUSE_URI=s3://fleet-lakehouse-111122223333-eu-central-1/telemetry\n")
    error_message = "the lakehouse"
  }

  assert {
    condition     = toset([for one in aws_glue_catalog_database.this : one.name]) == toset(["bronze", "silver", "gold"])
    error_message = "the databases"
  }
}

run "the_longest_name_in_the_longest_region_is_one_that_s3_takes" {
  variables {
    name   = "a23456789012345678-z"
    region = "ap-southeast-1"
  }

  assert {
    condition     = alltrue([for one in [module.landing, module.lakehouse, module.scripts, module.query_results, module.access_logs] : length(one.name) <= 63])
    error_message = "at most 63 characters"
  }
}

run "without_any_service_nothing_is_left_of_remote_steps" {
  variables {
    compute = []
    engine  = "embedded"
  }

  assert {
    condition     = length(aws_iam_role.job) == 0 && length(aws_iam_policy.job) == 0
    error_message = "no role for jobs"
  }

  assert {
    condition     = !strcontains(output.dotenv, "SCRIPTS") && strcontains(output.dotenv, "TELEMETRY_ENGINE=embedded\n")
    error_message = "no setting of remote steps"
  }

  assert {
    condition     = !contains(flatten([for one in data.aws_iam_policy_document.orchestrator.statement : one.actions]), "iam:PassRole")
    error_message = "no role is passed"
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset(["uploads-wait", "uploads-not-taken", "gold-is-behind", "documents-rejected"])
    error_message = "no alarm of remote runs"
  }
}

run "a_service_that_is_not_used_yet_has_no_alarm" {
  variables {
    engine = "embedded"
  }

  assert {
    condition     = length(aws_emrserverless_application.this) == 1 && !contains(keys(aws_cloudwatch_metric_alarm.this), "remote-runs-fail")
    error_message = "nothing is told of remote runs while the engine is embedded"
  }
}

run "more_settings_are_in_the_dotenv_file_and_with_dagster" {
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
    error_message = "what is set here stands, also for what would be set otherwise"
  }

  assert {
    condition     = local.settings["TELEMETRY_SENSOR_INTERVAL_SECONDS"] == "60"
    error_message = "Dagster on Fargate has the same"
  }
}

run "what_nobody_keeps_is_deleted_by_one_rule" {
  assert {
    condition     = toset(module.query_results.rules) == toset(["leftovers"]) && toset(module.access_logs.rules) == toset(["leftovers"])
    error_message = "no two rules over the same objects"
  }

  assert {
    condition     = module.query_results.expiration_days == 7 && module.access_logs.expiration_days == 90
    error_message = "after the days that the variables say"
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
    error_message = "the job is as it was asked for"
  }

  assert {
    condition     = strcontains(output.dotenv, "TELEMETRY_REMOTE_SIZES={\"default\":{\"executors\":2,\"glue_worker_type\":\"G.1X\"}}\n")
    error_message = "steps ask for the job's own size: a driver, and two executors"
  }

  assert {
    condition     = length(aws_emrserverless_application.this) == 0 && !strcontains(output.dotenv, "EMR")
    error_message = "no application"
  }

  assert {
    condition     = !contains(flatten([for one in data.aws_iam_policy_document.orchestrator.statement : one.actions]), "iam:PassRole")
    error_message = "Glue's job has its role; nobody passes one"
  }
}

run "with_a_key_everything_is_encrypted_with_it" {
  variables {
    compute        = ["emr_serverless", "glue"]
    create_kms_key = true
  }

  assert {
    condition     = aws_kms_key.this[0].enable_key_rotation
    error_message = "the key rotates"
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == aws_kms_key.this[0].arn && strcontains(output.dotenv, "TELEMETRY_KMS_KEY_ID=${aws_kms_key.this[0].arn}\n")
    error_message = "alarms and the project use it"
  }

  assert {
    condition     = alltrue([for one in [data.aws_iam_policy_document.orchestrator, data.aws_iam_policy_document.job, data.aws_iam_policy_document.analyst, data.aws_iam_policy_document.uploader] : contains(flatten([for statement in one.statement : statement.actions]), "kms:GenerateDataKey")])
    error_message = "everybody may use it"
  }
}

run "a_key_that_is_there_is_used" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/theirs"
  }

  assert {
    condition     = length(aws_kms_key.this) == 0 && strcontains(output.dotenv, "TELEMETRY_KMS_KEY_ID=arn:aws:kms:eu-central-1:111122223333:key/theirs\n")
    error_message = "no other is made"
  }
}

run "an_archive_that_is_kept_as_it_is_has_no_rule" {
  variables {
    archive_instant_retrieval_days = null
  }

  assert {
    condition     = toset(module.lakehouse.rules) == toset(["leftovers", "remote-steps"])
    error_message = "the rules of what is left over, and of what remote steps leave"
  }
}

run "without_a_budget" {
  variables {
    monthly_budget_usd = null
  }

  assert {
    condition     = length(aws_budgets_budget.this) == 0
    error_message = "no budget"
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
    error_message = "it says where it is"
  }
}

run "alarms_and_the_budget_reach_those_who_asked" {
  variables {
    alarm_emails        = ["one@example.com", "other@example.com"]
    upload_wait_minutes = 10
  }

  assert {
    condition     = length(aws_sns_topic_subscription.alarms) == 2
    error_message = "both"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["uploads-wait"].threshold == 600
    error_message = "in seconds"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["gold-is-behind"].treat_missing_data == "breaching"
    error_message = "silence is an alarm"
  }

  assert {
    condition = alltrue([for one in values(aws_cloudwatch_metric_alarm.this) :
      one.namespace == "TelemetryAssets" && one.dimensions["Lakehouse"] == local.lakehouse_uri && one.alarm_actions == toset([aws_sns_topic.alarms.arn])
    ])
    error_message = "of this lakehouse, to the topic"
  }
}
