variable "name" {
  description = "What the names here begin with, but for those of databases, saved queries and metrics. The name of an account's bucket is unlike any other in the world, so account and region are added to those of buckets."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 20
    error_message = "name has 3 to 20 characters: small letters, digits and single hyphens, a letter first, no hyphen last."
  }

  validation {
    condition     = !can(regex("^(sg-|xn--|sthree-|amzn-)", var.name))
    error_message = "name begins with none of sg-, xn--, sthree- and amzn-, which AWS keeps for itself."
  }
}

variable "region" {
  description = "The region of everything here."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is the name of a region, such as eu-central-1."
  }
}

variable "tags" {
  description = "Tags of everything here, besides Project and Lakehouse."
  type        = map(string)
  default     = {}
}

variable "permissions_boundary_arn" {
  description = "The permissions boundary of every role here, where the account asks for one."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::[0-9a-z]+:policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn is the ARN of a policy."
  }
}

# What runs the transforms

variable "compute" {
  description = "The Spark services that are set up: emr_serverless, glue, both or none."
  type        = set(string)
  default     = ["emr_serverless"]

  validation {
    condition     = length(setsubtract(var.compute, ["emr_serverless", "glue"])) == 0
    error_message = "compute holds emr_serverless, glue, both or nothing."
  }
}

variable "engine" {
  description = "Where the project runs its transforms (TELEMETRY_ENGINE): embedded needs no service, and is enough for a million events a day."
  type        = string
  default     = "emr_serverless"

  validation {
    condition     = var.engine == "embedded" || contains(var.compute, var.engine)
    error_message = "engine is embedded, or one of compute."
  }
}

variable "emr_release" {
  description = "The release of the EMR Serverless application. 7.13 is the first one with Spark 3.5.6 and Iceberg 1.10."
  type        = string
  default     = "emr-7.13.0"

  validation {
    condition     = can(regex("^emr-7\\.(1[3-9]|[2-9][0-9])\\.[0-9]+$", var.emr_release))
    error_message = "emr_release is emr-7.13.0 or a newer release of 7.x."
  }
}

variable "emr_architecture" {
  description = "The processors of the EMR Serverless application. For ARM64 build the package with `make package ARCHITECTURES=\"x86_64 aarch64\"`."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.emr_architecture)
    error_message = "emr_architecture is X86_64 or ARM64."
  }
}

variable "emr_idle_minutes" {
  description = "After how many minutes without a run the application stops. It starts by itself."
  type        = number
  default     = 5

  validation {
    condition     = var.emr_idle_minutes >= 1 && var.emr_idle_minutes <= 10080 && floor(var.emr_idle_minutes) == var.emr_idle_minutes
    error_message = "emr_idle_minutes is a whole number from 1 to 10080."
  }
}

variable "emr_maximum_capacity" {
  description = "The most that all runs of the application may use at one time. A run has a driver and up to emr_executors executors, of 4 vCPU, 16 GB and 20 GB of disk each."
  type = object({
    vcpu      = number
    memory_gb = number
    disk_gb   = number
  })
  default = { vcpu = 40, memory_gb = 160, disk_gb = 200 }

  validation {
    condition     = var.emr_maximum_capacity.vcpu >= 8 && var.emr_maximum_capacity.memory_gb >= 32 && var.emr_maximum_capacity.disk_gb >= 40
    error_message = "emr_maximum_capacity has room for a driver and an executor: at least 8 vCPU, 32 GB and 40 GB of disk."
  }

  validation {
    condition     = alltrue([for amount in values(var.emr_maximum_capacity) : floor(amount) == amount])
    error_message = "emr_maximum_capacity is in whole numbers."
  }
}

variable "emr_executors" {
  description = "The most executors of a run in EMR Serverless, each of 4 vCPU, 16 GB and 20 GB of disk. Dynamic allocation takes what it needs."
  type        = number
  default     = 4

  validation {
    condition     = var.emr_executors >= 1 && floor(var.emr_executors) == var.emr_executors
    error_message = "emr_executors is a whole number of at least 1."
  }

  validation {
    condition     = (var.emr_executors + 1) * 4 <= var.emr_maximum_capacity.vcpu && (var.emr_executors + 1) * 16 <= var.emr_maximum_capacity.memory_gb && (var.emr_executors + 1) * 20 <= var.emr_maximum_capacity.disk_gb
    error_message = "emr_executors and the driver, of 4 vCPU, 16 GB and 20 GB of disk each, have to find room in emr_maximum_capacity."
  }
}

variable "emr_network" {
  description = "The private subnets and security groups that the application's workers are in; null outside of any VPC, which reaches S3 and Glue all the same."
  type = object({
    subnet_ids         = set(string)
    security_group_ids = set(string)
  })
  default = null

  validation {
    condition     = var.emr_network == null ? true : length(var.emr_network.subnet_ids) > 0 && length(var.emr_network.security_group_ids) > 0
    error_message = "emr_network names at least one subnet and one security group, or is null."
  }
}

variable "glue_worker_type" {
  description = "The Glue job's worker type."
  type        = string
  default     = "G.1X"

  validation {
    condition     = contains(["G.1X", "G.2X", "G.4X", "G.8X"], var.glue_worker_type)
    error_message = "glue_worker_type is G.1X, G.2X, G.4X or G.8X."
  }
}

variable "glue_workers" {
  description = "The Glue job's most workers, the driver's among them. Auto-scaling takes what it needs."
  type        = number
  default     = 5

  validation {
    condition     = var.glue_workers >= 2 && floor(var.glue_workers) == var.glue_workers
    error_message = "glue_workers is a whole number of at least 2."
  }
}

variable "glue_max_concurrent_runs" {
  description = "Runs of the Glue job at one time. One table has one writer, so that there are five at most; a start beyond the limit is asked for again."
  type        = number
  default     = 5

  validation {
    condition     = var.glue_max_concurrent_runs >= 1 && floor(var.glue_max_concurrent_runs) == var.glue_max_concurrent_runs
    error_message = "glue_max_concurrent_runs is a whole number of at least 1."
  }
}

variable "glue_execution_class" {
  description = "STANDARD, or FLEX: spare capacity at two thirds of the price, which may be long in coming."
  type        = string
  default     = "STANDARD"

  validation {
    condition     = var.glue_execution_class == "STANDARD" || (var.glue_execution_class == "FLEX" && contains(["G.1X", "G.2X"], var.glue_worker_type))
    error_message = "glue_execution_class is STANDARD, or FLEX with workers of type G.1X or G.2X."
  }
}

variable "remote_timeout_minutes" {
  description = "How long a remote step may run (TELEMETRY_REMOTE_TIMEOUT_MINUTES)."
  type        = number
  default     = 120

  validation {
    condition     = var.remote_timeout_minutes >= 5 && var.remote_timeout_minutes <= 2880 && floor(var.remote_timeout_minutes) == var.remote_timeout_minutes
    error_message = "remote_timeout_minutes is a whole number from 5 to 2880."
  }
}

# What is kept, and for how long

variable "databases" {
  description = "The Glue databases. The project's tables are in these three; others serve nobody."
  type        = set(string)
  default     = ["bronze", "silver", "gold"]

  validation {
    condition     = alltrue([for name in var.databases : can(regex("^[a-z][a-z0-9_]*$", name))])
    error_message = "A database's name has small letters, digits and underscores, a letter first. A hyphen breaks SQL and paths."
  }

  validation {
    condition     = length(setsubtract(["bronze", "silver", "gold"], var.databases)) == 0
    error_message = "The project's tables need the databases bronze, silver and gold."
  }
}

variable "create_kms_key" {
  description = "Whether a KMS key is made, which uploads, tables, scripts, queries' results, alarms, and Dagster's database, image and logs are encrypted with. Otherwise AWS encrypts with its own keys, as it does the logs of requests and of Glue's runs."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "A KMS key of this region that is there already. Its policy has to let this account's IAM policies decide, and what kms.tf lets the services of alarms and logs do."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not of an alias."
  }

  validation {
    condition     = var.kms_key_arn == null ? true : try(split(":", var.kms_key_arn)[3], "") == var.region
    error_message = "kms_key_arn is of the region of everything else: no service here takes a key of another one."
  }

  validation {
    condition     = var.kms_key_arn == null || !var.create_kms_key
    error_message = "Either a key is made (create_kms_key), or kms_key_arn names one."
  }
}

variable "landing_noncurrent_days" {
  description = "For how many days uploads that were taken, or were replaced before, can be brought back. The archive has what was taken."
  type        = number
  default     = 7

  validation {
    condition     = var.landing_noncurrent_days >= 1 && floor(var.landing_noncurrent_days) == var.landing_noncurrent_days
    error_message = "landing_noncurrent_days is a whole number of at least 1."
  }
}

variable "lakehouse_noncurrent_days" {
  description = "For how many days an object of the lakehouse that was deleted or overwritten can be brought back."
  type        = number
  default     = 7

  validation {
    condition     = var.lakehouse_noncurrent_days >= 1 && floor(var.lakehouse_noncurrent_days) == var.lakehouse_noncurrent_days
    error_message = "lakehouse_noncurrent_days is a whole number of at least 1."
  }
}

variable "archive_instant_retrieval_days" {
  description = "After how many days archived uploads move to Glacier Instant Retrieval; null for never. Uploads below 128 KB stay where they are: S3 moves none so small. A class that has to be restored first is no choice: rejected documents are replayed from the archive."
  type        = number
  default     = 90

  validation {
    condition     = var.archive_instant_retrieval_days == null ? true : var.archive_instant_retrieval_days >= 1 && floor(var.archive_instant_retrieval_days) == var.archive_instant_retrieval_days
    error_message = "archive_instant_retrieval_days is a whole number of at least 1, or null."
  }
}

variable "archive_expiration_days" {
  description = "After how many days archived uploads are deleted; null for never. Rejected documents of a deleted upload cannot be replayed."
  type        = number
  default     = null

  validation {
    condition     = var.archive_expiration_days == null ? true : var.archive_expiration_days >= 30 && floor(var.archive_expiration_days) == var.archive_expiration_days
    error_message = "archive_expiration_days is a whole number of at least 30, or null."
  }

  validation {
    condition     = var.archive_expiration_days == null || var.archive_instant_retrieval_days == null ? true : var.archive_expiration_days > var.archive_instant_retrieval_days
    error_message = "archive_expiration_days is more than archive_instant_retrieval_days: nothing moves after it is deleted."
  }
}

variable "remote_steps_days" {
  description = "For how many days what remote runs and Dagster told each other is kept."
  type        = number
  default     = 14

  validation {
    condition     = var.remote_steps_days >= 3 && floor(var.remote_steps_days) == var.remote_steps_days
    error_message = "remote_steps_days is a whole number of at least 3, longer than any run."
  }
}

variable "logs_days" {
  description = "For how many days logs are kept: of remote runs, of requests to the buckets, and of Dagster."
  type        = number
  default     = 90

  validation {
    # What CloudWatch takes.
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.logs_days)
    error_message = "logs_days is one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653."
  }
}

variable "query_results_days" {
  description = "For how many days the results of Athena's queries are kept."
  type        = number
  default     = 7

  validation {
    condition     = var.query_results_days >= 1 && floor(var.query_results_days) == var.query_results_days
    error_message = "query_results_days is a whole number of at least 1."
  }
}

variable "delete_data_on_destroy" {
  description = "Whether `terraform destroy` deletes what is in the buckets. Leave it false for anything that somebody may miss."
  type        = bool
  default     = false
}

# Who is told what

variable "athena_scan_limit_gb" {
  description = "How many gigabytes a query of the analysts may read."
  type        = number
  default     = 100

  validation {
    condition     = var.athena_scan_limit_gb >= 1
    error_message = "athena_scan_limit_gb is at least 1."
  }
}

variable "alarm_emails" {
  description = "Who is told of alarms and of the budget, after a click in the mail that confirms it."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alarm_emails holds addresses."
  }
}

variable "upload_wait_minutes" {
  description = "An upload that waits for longer raises the alarm."
  type        = number
  default     = 30

  validation {
    condition     = var.upload_wait_minutes >= 10
    error_message = "upload_wait_minutes is at least 10: after a run that somebody has cancelled the next one waits for 5 alone."
  }
}

variable "gold_behind_minutes" {
  description = "A Gold table that lacks rows of Bronze for longer raises the alarm; so does a pipeline that tells nothing."
  type        = number
  default     = 60

  validation {
    condition     = var.gold_behind_minutes >= 10
    error_message = "gold_behind_minutes is at least 10: after a run that somebody has cancelled the next one waits for 5 alone."
  }
}

variable "rejected_documents_per_hour" {
  description = "More rejected documents in an hour raise the alarm."
  type        = number
  default     = 0

  validation {
    condition     = var.rejected_documents_per_hour >= 0
    error_message = "rejected_documents_per_hour is not below 0."
  }
}

variable "remote_run_minutes" {
  description = "A remote run that takes longer raises the alarm."
  type        = number
  default     = 60

  validation {
    condition     = var.remote_run_minutes >= 5 && var.remote_run_minutes < var.remote_timeout_minutes
    error_message = "remote_run_minutes is at least 5, and less than remote_timeout_minutes, at which a run is ended."
  }
}

variable "monthly_budget_usd" {
  description = "The account's costs of a month, of which 80 % spent, or 100 % foreseen, raise the alarm; null for no budget."
  type        = number
  default     = 100

  validation {
    condition     = var.monthly_budget_usd == null ? true : var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd is more than 0, or null."
  }
}

# Where Dagster runs

variable "dagster" {
  description = "Dagster on Fargate with a Postgres database, in private subnets that reach AWS's services by a NAT gateway or endpoints; null where Dagster runs elsewhere. `image_tag` is of the repository that is made here; people of `client_cidr_blocks` reach the UI."
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
    error_message = "dagster.subnet_ids names subnets of at least two zones: a database needs them."
  }

  validation {
    condition     = var.dagster == null ? true : alltrue([for block in var.dagster.client_cidr_blocks : try("${cidrhost(block, 0)}/${split("/", block)[1]}" == block && cidrnetmask(block) != "" && tonumber(split("/", block)[1]) >= 8, false)])
    error_message = "dagster.client_cidr_blocks holds IPv4 networks such as 10.1.0.0/16, of /8 at most: Dagster asks nobody for a password."
  }

  validation {
    condition     = var.dagster == null ? true : can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.dagster.image_tag)) && var.dagster.image_tag != "latest"
    error_message = "dagster.image_tag names one version, such as 0.1.0, not latest: tags of the repository cannot be moved."
  }

  validation {
    # What Fargate takes: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
    condition = var.dagster == null ? true : contains(lookup({
      "1024"  = range(2048, 8193, 1024)
      "2048"  = range(4096, 16385, 1024)
      "4096"  = range(8192, 30721, 1024)
      "8192"  = range(16384, 61441, 4096)
      "16384" = range(32768, 122881, 8192)
    }, tostring(var.dagster.cpu), []), var.dagster.memory_mb)
    error_message = "dagster.cpu and dagster.memory_mb are a size that Fargate has, of one vCPU (1024) at least, such as 2048 and 8192."
  }

  validation {
    condition     = var.dagster == null ? true : can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.dagster.database_class))
    error_message = "dagster.database_class is a class of RDS, such as db.t4g.micro."
  }
}

variable "dagster_role_name" {
  description = "A role that runs Dagster elsewhere, such as an instance's, and is given the orchestrator's policy here; null to attach it by hand."
  type        = string
  default     = null

  validation {
    condition     = var.dagster_role_name == null ? true : can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.dagster_role_name))
    error_message = "dagster_role_name is a role's name, not its ARN."
  }
}

variable "settings" {
  description = "More of the project's settings, by the names of their environment variables, such as TELEMETRY_SENSOR_INTERVAL_SECONDS: they are in `dotenv`, and in the environment of Dagster on Fargate."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^TELEMETRY_[A-Z0-9_]+$", name))])
    error_message = "settings are named TELEMETRY_…; docs/operating.md has them."
  }

  validation {
    condition     = !anytrue([for name in keys(var.settings) : contains(["TELEMETRY_LANDING_URI", "TELEMETRY_LAKEHOUSE_URI", "TELEMETRY_CATALOG", "TELEMETRY_ENGINE", "TELEMETRY_SCRIPTS_URI", "TELEMETRY_KMS_KEY_ID", "TELEMETRY_METRICS_NAMESPACE", "TELEMETRY_EMR_APPLICATION_ID", "TELEMETRY_EMR_JOB_ROLE_ARN", "TELEMETRY_GLUE_JOB_NAME", "TELEMETRY_REMOTE_TIMEOUT_MINUTES"], name)])
    error_message = "settings holds none of those that are made from other variables here: buckets, engine, services and their time limit."
  }

  validation {
    condition     = alltrue([for value in values(var.settings) : can(regex("^[^\\s#$'\"][^\\s#$]*$", value))])
    error_message = "settings hold values without white space, # and $, and without quotes around them: .env and Fargate read those differently."
  }
}
