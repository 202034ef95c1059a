variable "name" {
  description = "What the names of everything here begin with."
  type        = string
}

variable "region" {
  description = "The region."
  type        = string
}

variable "placement" {
  description = "Where it runs, on how much, and who reaches it; described in the root's variable dagster."
  type = object({
    vpc_id              = string
    subnet_ids          = set(string)
    image_tag           = string
    client_cidr_blocks  = set(string)
    cpu                 = number
    memory_mb           = number
    database_class      = string
    database_multi_az   = bool
    deletion_protection = bool
  })
}

variable "settings" {
  description = "The project's settings, as environment variables."
  type        = map(string)
}

variable "orchestrator_policy_arn" {
  description = "What the pipeline may do."
  type        = string
}

variable "kms_key_arn" {
  description = "The key of the logs, the image and the database; null for AWS's own."
  type        = string
  default     = null
}

variable "logs_days" {
  description = "For how many days logs are kept."
  type        = number
}

variable "permissions_boundary_arn" {
  description = "The permissions boundary of the roles."
  type        = string
  default     = null
}
