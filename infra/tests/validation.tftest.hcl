# Values that the validation of variables must reject.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name   = "fleet"
  region = "eu-central-1"
}

run "an_invalid_value_for_each_variable" {
  command = plan

  variables {
    name                           = "f"
    region                         = "Frankfurt"
    permissions_boundary_arn       = "a boundary"
    compute                        = ["emr"]
    emr_release                    = "emr-7.12.0"
    emr_architecture               = "arm64"
    emr_idle_minutes               = 0
    emr_maximum_capacity           = { vcpu = 4, memory_gb = 160, disk_gb = 200 }
    glue_worker_type               = "Standard"
    glue_workers                   = 1
    glue_max_concurrent_runs       = 0
    remote_timeout_minutes         = 4
    databases                      = ["bronze", "silver", "gold", "car-lakehouse"]
    landing_noncurrent_days        = 0
    lakehouse_noncurrent_days      = 0
    archive_instant_retrieval_days = 0
    remote_steps_days              = 1
    logs_days                      = 8
    query_results_days             = 0
    athena_scan_limit_gb           = 0
    alarm_emails                   = ["nobody"]
    upload_wait_minutes            = 1
    gold_behind_minutes            = 1
    rejected_documents_per_hour    = -1
    monthly_budget_usd             = 0
    dagster_role_name              = "arn:aws:iam::111122223333:role/theirs"
    emr_network                    = { subnet_ids = [], security_group_ids = [] }
    settings                       = { SENSOR_INTERVAL_SECONDS = "60" }
    dagster                        = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], image_tag = "1", client_cidr_blocks = [] }
  }

  expect_failures = [
    var.name,
    var.region,
    var.permissions_boundary_arn,
    var.compute,
    var.emr_release,
    var.emr_architecture,
    var.emr_idle_minutes,
    var.emr_maximum_capacity,
    var.glue_worker_type,
    var.glue_workers,
    var.glue_max_concurrent_runs,
    var.remote_timeout_minutes,
    var.databases,
    var.landing_noncurrent_days,
    var.lakehouse_noncurrent_days,
    var.archive_instant_retrieval_days,
    var.remote_steps_days,
    var.logs_days,
    var.query_results_days,
    var.athena_scan_limit_gb,
    var.alarm_emails,
    var.upload_wait_minutes,
    var.gold_behind_minutes,
    var.rejected_documents_per_hour,
    var.monthly_budget_usd,
    var.dagster_role_name,
    var.emr_network,
    var.settings,
    var.dagster,
  ]
}

run "a_second_invalid_value" {
  command = plan

  variables {
    emr_executors          = 0
    name                   = "Fleet"
    databases              = ["bronze", "silver"]
    dagster                = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], image_tag = "1", client_cidr_blocks = ["0.0.0.0/1", "128.0.0.0/1"] }
    engine                 = "glue"
    archive_retention_days = 0
    glue_execution_class   = "SPOT"
    kms_key_arn            = "arn:aws:kms:us-east-1:111122223333:key/theirs"
    settings               = { TELEMETRY_ENGINE = "glue" }
  }

  expect_failures = [
    var.emr_executors,
    var.name,
    var.databases,
    var.dagster,
    var.engine,
    var.archive_retention_days,
    var.glue_execution_class,
    var.kms_key_arn,
    var.settings,
  ]
}

run "a_third_invalid_value" {
  command = plan

  variables {
    name                 = "fleet_a"
    dagster              = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], image_tag = "latest", client_cidr_blocks = [] }
    kms_key_arn          = "alias/theirs"
    emr_maximum_capacity = { vcpu = 40.5, memory_gb = 160, disk_gb = 200 }
    settings             = { TELEMETRY_REMOTE_SIZES = "{ \"default\": {} }" }
  }

  expect_failures = [
    var.name,
    var.dagster,
    var.emr_maximum_capacity,
    var.kms_key_arn,
    var.settings,
  ]
}

run "an_unsupported_fargate_size" {
  command = plan

  variables {
    dagster = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], image_tag = "1", client_cidr_blocks = [], cpu = 2048, memory_mb = 2048 }
  }

  expect_failures = [var.dagster]
}

run "an_invalid_database_class" {
  command = plan

  variables {
    dagster = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], image_tag = "1", client_cidr_blocks = [], database_class = "t4g" }
  }

  expect_failures = [var.dagster]
}

run "a_quoted_setting" {
  command = plan

  variables {
    settings = { TELEMETRY_REMOTE_SIZES = "'{}'" }
  }

  expect_failures = [var.settings]
}

run "an_invalid_image_tag" {
  command = plan

  variables {
    dagster = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], image_tag = "no such/tag", client_cidr_blocks = [] }
  }

  expect_failures = [var.dagster]
}

run "an_address_with_host_bits" {
  command = plan

  variables {
    dagster = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], image_tag = "1", client_cidr_blocks = ["10.1.2.3/16"] }
  }

  expect_failures = [var.dagster]
}

run "an_ipv6_network" {
  command = plan

  variables {
    dagster = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], image_tag = "1", client_cidr_blocks = ["fd00::/8"] }
  }

  expect_failures = [var.dagster]
}

run "a_trailing_hyphen" {
  command = plan

  variables {
    name = "fleet-"
  }

  expect_failures = [
    var.name,
  ]
}

run "a_name_that_is_too_long" {
  command = plan

  variables {
    name = "a-name-of-far-too-many-letters"
  }

  expect_failures = [
    var.name,
  ]
}

run "too_many_executors_and_fractional_days" {
  command = plan

  variables {
    emr_executors                  = 10
    landing_noncurrent_days        = 1.5
    lakehouse_noncurrent_days      = 1.5
    archive_instant_retrieval_days = 1.5
    remote_steps_days              = 3.5
    query_results_days             = 1.5
  }

  expect_failures = [
    var.emr_executors,
    var.landing_noncurrent_days,
    var.lakehouse_noncurrent_days,
    var.archive_instant_retrieval_days,
    var.remote_steps_days,
    var.query_results_days,
  ]
}

run "an_alarm_threshold_beyond_the_time_limit" {
  command = plan

  variables {
    remote_run_minutes     = 60
    remote_timeout_minutes = 60
  }

  expect_failures = [var.remote_run_minutes]
}

run "fractional_days_of_the_archive" {
  command = plan

  variables {
    archive_instant_retrieval_days = null
    archive_retention_days         = 30.5
  }

  expect_failures = [var.archive_retention_days]
}

run "fractional_days_of_rejected_documents" {
  command = plan

  variables {
    rejected_retention_days = 0.5
  }

  expect_failures = [var.rejected_retention_days]
}

run "consecutive_hyphens" {
  command = plan

  variables {
    name = "fleet--a"
  }

  expect_failures = [var.name]
}

run "a_reserved_prefix" {
  command = plan

  variables {
    name = "sg-fleet"
  }

  expect_failures = [var.name]
}

run "conflicting_values" {
  command = plan

  variables {
    create_kms_key       = true
    kms_key_arn          = "arn:aws:kms:eu-central-1:111122223333:key/theirs"
    compute              = ["glue"]
    engine               = "emr_serverless"
    glue_execution_class = "FLEX"
    glue_worker_type     = "G.4X"

    archive_retention_days = 60
  }

  expect_failures = [var.kms_key_arn, var.engine, var.glue_execution_class, var.archive_retention_days]
}
