variable "name" {
  description = "Prefix of the names of all resources except databases, saved queries and metrics. Bucket names also end in the account ID and the region, because they must be globally unique."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 20
    error_message = "name must have 3 to 20 characters: lowercase letters, digits and single hyphens. It must start with a letter and must not end with a hyphen."
  }

  validation {
    condition     = !can(regex("^(sg-|xn--|sthree-|amzn-)", var.name))
    error_message = "name must not start with sg-, xn--, sthree- or amzn-: AWS reserves these prefixes."
  }
}

variable "region" {
  description = "AWS region of all resources."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be the name of an AWS region, such as eu-central-1."
  }
}

variable "tags" {
  description = "Tags of all resources, in addition to Project and Lakehouse."
  type        = map(string)
  default     = {}
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of every role, for accounts that require one."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::[0-9a-z]+:policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of a policy."
  }
}

# Compute

variable "compute" {
  description = "Spark services to create: emr_serverless, glue, both or none."
  type        = set(string)
  default     = ["emr_serverless"]

  validation {
    condition     = length(setsubtract(var.compute, ["emr_serverless", "glue"])) == 0
    error_message = "compute must contain only emr_serverless and glue, or be empty."
  }
}

variable "engine" {
  description = "Engine that runs the transforms (TELEMETRY_ENGINE). The embedded engine needs no Spark service and is sufficient for a million events a day."
  type        = string
  default     = "emr_serverless"

  validation {
    condition     = var.engine == "embedded" || contains(var.compute, var.engine)
    error_message = "engine must be embedded or one of the services in compute."
  }
}

variable "emr_release" {
  description = "Release of the EMR Serverless application. 7.13 is the first release with Spark 3.5.6 and Iceberg 1.10."
  type        = string
  default     = "emr-7.13.0"

  validation {
    condition     = can(regex("^emr-7\\.(1[3-9]|[2-9][0-9])\\.[0-9]+$", var.emr_release))
    error_message = "emr_release must be emr-7.13.0 or a later 7.x release."
  }
}

variable "emr_architecture" {
  description = "Processor architecture of the EMR Serverless application: X86_64 or ARM64. For ARM64, build the package with `make package ARCHITECTURES=\"x86_64 aarch64\"`."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.emr_architecture)
    error_message = "emr_architecture must be X86_64 or ARM64."
  }
}

variable "emr_idle_minutes" {
  description = "Minutes without a run after which the EMR Serverless application stops. It starts automatically."
  type        = number
  default     = 5

  validation {
    condition     = var.emr_idle_minutes >= 1 && var.emr_idle_minutes <= 10080 && floor(var.emr_idle_minutes) == var.emr_idle_minutes
    error_message = "emr_idle_minutes must be a whole number from 1 to 10080."
  }
}

variable "emr_maximum_capacity" {
  description = "Maximum capacity of all concurrent runs of the EMR Serverless application. A run has one driver and up to emr_executors executors; each uses 4 vCPU, 16 GB of memory and 20 GB of disk."
  type = object({
    vcpu      = number
    memory_gb = number
    disk_gb   = number
  })
  default = { vcpu = 40, memory_gb = 160, disk_gb = 200 }

  validation {
    condition     = var.emr_maximum_capacity.vcpu >= 8 && var.emr_maximum_capacity.memory_gb >= 32 && var.emr_maximum_capacity.disk_gb >= 40
    error_message = "emr_maximum_capacity must fit one driver and one executor: at least 8 vCPU, 32 GB of memory and 40 GB of disk."
  }

  validation {
    condition     = alltrue([for amount in values(var.emr_maximum_capacity) : floor(amount) == amount])
    error_message = "emr_maximum_capacity must contain whole numbers."
  }
}

variable "emr_executors" {
  description = "Maximum number of executors of a run in EMR Serverless. Each uses 4 vCPU, 16 GB of memory and 20 GB of disk. Dynamic allocation starts only as many as the run needs."
  type        = number
  default     = 4

  validation {
    condition     = var.emr_executors >= 1 && floor(var.emr_executors) == var.emr_executors
    error_message = "emr_executors must be a whole number of at least 1."
  }

  validation {
    condition     = (var.emr_executors + 1) * 4 <= var.emr_maximum_capacity.vcpu && (var.emr_executors + 1) * 16 <= var.emr_maximum_capacity.memory_gb && (var.emr_executors + 1) * 20 <= var.emr_maximum_capacity.disk_gb
    error_message = "emr_maximum_capacity must fit the driver and emr_executors executors, each with 4 vCPU, 16 GB of memory and 20 GB of disk."
  }
}

variable "emr_network" {
  description = "Private subnets and security groups of the EMR Serverless workers. If null, the workers run outside any VPC of the account and still reach S3 and Glue."
  type = object({
    subnet_ids         = set(string)
    security_group_ids = set(string)
  })
  default = null

  validation {
    condition     = var.emr_network == null ? true : length(var.emr_network.subnet_ids) > 0 && length(var.emr_network.security_group_ids) > 0
    error_message = "emr_network must name at least one subnet and one security group, or be null."
  }
}

variable "glue_worker_type" {
  description = "Worker type of the Glue job: G.1X, G.2X, G.4X or G.8X."
  type        = string
  default     = "G.1X"

  validation {
    condition     = contains(["G.1X", "G.2X", "G.4X", "G.8X"], var.glue_worker_type)
    error_message = "glue_worker_type must be G.1X, G.2X, G.4X or G.8X."
  }
}

variable "glue_workers" {
  description = "Maximum number of workers of the Glue job, including the driver. Auto Scaling starts only as many as the run needs."
  type        = number
  default     = 5

  validation {
    condition     = var.glue_workers >= 2 && floor(var.glue_workers) == var.glue_workers
    error_message = "glue_workers must be a whole number of at least 2."
  }
}

variable "glue_max_concurrent_runs" {
  description = "Maximum number of concurrent runs of the Glue job. The project starts one at a time; a higher limit helps only while a cancelled run is still stopping. The project retries a start that exceeds the limit."
  type        = number
  default     = 5

  validation {
    condition     = var.glue_max_concurrent_runs >= 1 && floor(var.glue_max_concurrent_runs) == var.glue_max_concurrent_runs
    error_message = "glue_max_concurrent_runs must be a whole number of at least 1."
  }
}

variable "glue_execution_class" {
  description = "Execution class of the Glue job: STANDARD or FLEX. FLEX uses spare capacity at two thirds of the price, and runs can take long to start."
  type        = string
  default     = "STANDARD"

  validation {
    condition     = var.glue_execution_class == "STANDARD" || (var.glue_execution_class == "FLEX" && contains(["G.1X", "G.2X"], var.glue_worker_type))
    error_message = "glue_execution_class must be STANDARD, or FLEX with worker type G.1X or G.2X."
  }
}

variable "remote_timeout_minutes" {
  description = "Time limit of a remote step, in minutes (TELEMETRY_REMOTE_TIMEOUT_MINUTES)."
  type        = number
  default     = 120

  validation {
    condition     = var.remote_timeout_minutes >= 5 && var.remote_timeout_minutes <= 2880 && floor(var.remote_timeout_minutes) == var.remote_timeout_minutes
    error_message = "remote_timeout_minutes must be a whole number from 5 to 2880."
  }
}

# Storage, encryption and retention

variable "databases" {
  description = "Names of the Glue databases. The project uses bronze, silver and gold only."
  type        = set(string)
  default     = ["bronze", "silver", "gold"]

  validation {
    condition     = alltrue([for name in var.databases : can(regex("^[a-z][a-z0-9_]*$", name))])
    error_message = "A database name must consist of lowercase letters, digits and underscores, and must start with a letter. A hyphen breaks SQL statements and paths."
  }

  validation {
    condition     = length(setsubtract(["bronze", "silver", "gold"], var.databases)) == 0
    error_message = "databases must contain bronze, silver and gold: the project's tables are in them."
  }
}

variable "create_kms_key" {
  description = "Whether to create a KMS key. It encrypts uploads, tables, scripts, query results, alarms, and Dagster's database, image and logs. Otherwise AWS encrypts them with its own keys. AWS always encrypts S3 access logs and the logs of Glue runs with its own keys."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "ARN of an existing KMS key in this region. Its key policy must delegate access control to the account's IAM policies and must grant the services of alarms and logs what kms.tf grants them."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, not of an alias."
  }

  validation {
    condition     = var.kms_key_arn == null ? true : try(split(":", var.kms_key_arn)[3], "") == var.region
    error_message = "kms_key_arn must be in the same region as all other resources."
  }

  validation {
    condition     = var.kms_key_arn == null || !var.create_kms_key
    error_message = "Set either create_kms_key or kms_key_arn, not both."
  }
}

variable "landing_noncurrent_days" {
  description = "Days for which deleted and overwritten uploads in the landing bucket can be restored. Processed uploads also remain in the archive."
  type        = number
  default     = 7

  validation {
    condition     = var.landing_noncurrent_days >= 1 && floor(var.landing_noncurrent_days) == var.landing_noncurrent_days
    error_message = "landing_noncurrent_days must be a whole number of at least 1."
  }
}

variable "lakehouse_noncurrent_days" {
  description = "Days for which deleted and overwritten objects in the lakehouse bucket can be restored."
  type        = number
  default     = 7

  validation {
    condition     = var.lakehouse_noncurrent_days >= 1 && floor(var.lakehouse_noncurrent_days) == var.lakehouse_noncurrent_days
    error_message = "lakehouse_noncurrent_days must be a whole number of at least 1."
  }
}

variable "archive_instant_retrieval_days" {
  description = "Days after which archived uploads move to S3 Glacier Instant Retrieval; null for never. S3 does not move uploads smaller than 128 KB. Storage classes that need a restore are not supported, because rejected documents are replayed from the archive."
  type        = number
  default     = 90

  validation {
    condition     = var.archive_instant_retrieval_days == null ? true : var.archive_instant_retrieval_days >= 1 && floor(var.archive_instant_retrieval_days) == var.archive_instant_retrieval_days
    error_message = "archive_instant_retrieval_days must be a whole number of at least 1, or null."
  }
}

variable "archive_retention_days" {
  description = "Days after which the daily maintenance deletes archived uploads (TELEMETRY_ARCHIVE_RETENTION_DAYS); null for never. It deletes an upload only if its rows are in the tables. No lifecycle rule does this, because it would also delete uploads of a batch that could not be finished. Rejected documents of a deleted upload cannot be replayed."
  type        = number
  default     = null

  validation {
    condition     = var.archive_retention_days == null ? true : var.archive_retention_days >= 1 && floor(var.archive_retention_days) == var.archive_retention_days
    error_message = "archive_retention_days must be a whole number of at least 1, or null."
  }

  validation {
    condition     = var.archive_retention_days == null || var.archive_instant_retrieval_days == null ? true : var.archive_retention_days > var.archive_instant_retrieval_days
    error_message = "archive_retention_days must be greater than archive_instant_retrieval_days."
  }
}

variable "rejected_retention_days" {
  description = "Days after which the daily maintenance deletes rejected documents (TELEMETRY_REJECTED_RETENTION_DAYS); null for never."
  type        = number
  default     = null

  validation {
    condition     = var.rejected_retention_days == null ? true : var.rejected_retention_days >= 1 && floor(var.rejected_retention_days) == var.rejected_retention_days
    error_message = "rejected_retention_days must be a whole number of at least 1, or null."
  }
}

variable "table_optimizers" {
  description = "Whether Glue's table optimizers maintain the tables: compaction, snapshot retention and removal of orphan files. The project maintains its tables itself, so they are not needed (docs/operating.md, Maintenance). The tables must exist, so apply this after the first run."
  type        = bool
  default     = false
}

variable "remote_steps_days" {
  description = "Days for which the messages between remote runs and Dagster are kept."
  type        = number
  default     = 14

  validation {
    condition     = var.remote_steps_days >= 3 && floor(var.remote_steps_days) == var.remote_steps_days
    error_message = "remote_steps_days must be a whole number of at least 3, which is longer than any run."
  }
}

variable "logs_days" {
  description = "Days for which logs are kept: of remote runs, of requests to the buckets, and of Dagster."
  type        = number
  default     = 90

  validation {
    # The retention periods that CloudWatch Logs supports.
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.logs_days)
    error_message = "logs_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653."
  }
}

variable "query_results_days" {
  description = "Days for which results of Athena queries are kept."
  type        = number
  default     = 7

  validation {
    condition     = var.query_results_days >= 1 && floor(var.query_results_days) == var.query_results_days
    error_message = "query_results_days must be a whole number of at least 1."
  }
}

variable "delete_data_on_destroy" {
  description = "Whether `terraform destroy` deletes the objects in the buckets. Set it to true only for data that can be lost."
  type        = bool
  default     = false
}

# Queries and monitoring

variable "athena_scan_limit_gb" {
  description = "Maximum number of gigabytes that one Athena query of an analyst may scan."
  type        = number
  default     = 100

  validation {
    condition     = var.athena_scan_limit_gb >= 1
    error_message = "athena_scan_limit_gb must be at least 1."
  }
}

variable "alarm_emails" {
  description = "E-mail addresses that receive alarms and budget notifications. Each recipient must confirm the subscription by a link in an e-mail."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alarm_emails must contain e-mail addresses."
  }
}

variable "upload_wait_minutes" {
  description = "Minutes that an upload may wait before the alarm uploads-wait is raised."
  type        = number
  default     = 30

  validation {
    condition     = var.upload_wait_minutes >= 10
    error_message = "upload_wait_minutes must be at least 10: after a run is canceled, the next run waits for 5 minutes."
  }
}

variable "gold_behind_minutes" {
  description = "Minutes that a Gold table may lack rows of Bronze before the alarm gold-is-behind is raised. The alarm is also raised if the pipeline sends no metrics."
  type        = number
  default     = 60

  validation {
    condition     = var.gold_behind_minutes >= 10
    error_message = "gold_behind_minutes must be at least 10: after a run is canceled, the next run waits for 5 minutes."
  }
}

variable "rejected_documents_per_hour" {
  description = "Number of rejected documents in an hour above which the alarm documents-rejected is raised."
  type        = number
  default     = 0

  validation {
    condition     = var.rejected_documents_per_hour >= 0
    error_message = "rejected_documents_per_hour must be at least 0."
  }
}

variable "remote_run_minutes" {
  description = "Minutes that a remote run may take before the alarm remote-run-is-long is raised."
  type        = number
  default     = 60

  validation {
    condition     = var.remote_run_minutes >= 5 && var.remote_run_minutes < var.remote_timeout_minutes
    error_message = "remote_run_minutes must be at least 5 and less than remote_timeout_minutes, which ends a run."
  }
}

variable "monthly_budget_usd" {
  description = "Monthly budget of the whole account in USD. A notification is sent when actual costs exceed 80 % of it or forecast costs exceed 100 %. If null, no budget is created."
  type        = number
  default     = 100

  validation {
    condition     = var.monthly_budget_usd == null ? true : var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd must be greater than 0, or null."
  }
}

# Dagster and the project's settings

variable "dagster" {
  description = "Dagster on Fargate with a Postgres database, in private subnets that reach AWS services through a NAT gateway or VPC endpoints; null if Dagster runs elsewhere. `image_tag` is a tag in the repository that this configuration creates. Clients in `client_cidr_blocks` can open the UI."
  type = object({
    vpc_id              = string
    subnet_ids          = set(string)
    image_tag           = string
    client_cidr_blocks  = set(string)
    cpu                 = optional(number, 2048)
    memory_mb           = optional(number, 8192)
    database_class      = optional(string, "db.t4g.micro")
    database_multi_az   = optional(bool, false)
    deletion_protection = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.dagster == null ? true : length(var.dagster.subnet_ids) >= 2
    error_message = "dagster.subnet_ids must name at least two subnets, in different Availability Zones: the database requires them."
  }

  validation {
    condition     = var.dagster == null ? true : alltrue([for block in var.dagster.client_cidr_blocks : try("${cidrhost(block, 0)}/${split("/", block)[1]}" == block && cidrnetmask(block) != "" && tonumber(split("/", block)[1]) >= 8, false)])
    error_message = "dagster.client_cidr_blocks must contain IPv4 networks, such as 10.1.0.0/16, with a prefix length of at least 8: Dagster has no authentication."
  }

  validation {
    condition     = var.dagster == null ? true : can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.dagster.image_tag)) && var.dagster.image_tag != "latest"
    error_message = "dagster.image_tag must be the tag of one version, such as 0.1.0, and not latest: tags of the repository are immutable."
  }

  validation {
    # The task sizes of Fargate: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
    condition = var.dagster == null ? true : contains(lookup({
      "1024"  = range(2048, 8193, 1024)
      "2048"  = range(4096, 16385, 1024)
      "4096"  = range(8192, 30721, 1024)
      "8192"  = range(16384, 61441, 4096)
      "16384" = range(32768, 122881, 8192)
    }, tostring(var.dagster.cpu), []), var.dagster.memory_mb)
    error_message = "dagster.cpu and dagster.memory_mb must be a task size that Fargate supports, with at least one vCPU (1024), such as 2048 and 8192."
  }

  validation {
    condition     = var.dagster == null ? true : can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.dagster.database_class))
    error_message = "dagster.database_class must be an RDS instance class, such as db.t4g.micro."
  }
}

variable "dagster_role_name" {
  description = "Name of the role of a Dagster that runs elsewhere, such as the role of an EC2 instance. The orchestrator policy is attached to it. If null, attach the policy yourself."
  type        = string
  default     = null

  validation {
    condition     = var.dagster_role_name == null ? true : can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.dagster_role_name))
    error_message = "dagster_role_name must be the name of a role, not its ARN."
  }
}

variable "settings" {
  description = "Further settings of the project, by the names of their environment variables, such as TELEMETRY_SENSOR_INTERVAL_SECONDS. They are part of the output `dotenv` and of the environment of Dagster on Fargate."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^TELEMETRY_[A-Z0-9_]+$", name))])
    error_message = "Names in settings must start with TELEMETRY_; docs/operating.md lists them."
  }

  validation {
    condition     = !anytrue([for name in keys(var.settings) : contains(["TELEMETRY_LANDING_URI", "TELEMETRY_LAKEHOUSE_URI", "TELEMETRY_CATALOG", "TELEMETRY_ENGINE", "TELEMETRY_SCRIPTS_URI", "TELEMETRY_KMS_KEY_ID", "TELEMETRY_METRICS_NAMESPACE", "TELEMETRY_EMR_APPLICATION_ID", "TELEMETRY_EMR_JOB_ROLE_ARN", "TELEMETRY_GLUE_JOB_NAME", "TELEMETRY_REMOTE_TIMEOUT_MINUTES", "TELEMETRY_ARCHIVE_RETENTION_DAYS", "TELEMETRY_REJECTED_RETENTION_DAYS"], name)])
    error_message = "settings must not contain settings that other variables determine: buckets, engine, Spark services and their time limit, and retention."
  }

  validation {
    condition     = alltrue([for value in values(var.settings) : can(regex("^[^\\s#$'\"][^\\s#$]*$", value))])
    error_message = "Values in settings must not contain white space, # or $, and must not start with a quote: .env files and Fargate interpret these differently."
  }
}
