variable "name" {
  description = "Prefix of the names of all resources."
  type        = string
}

variable "region" {
  description = "AWS region of all resources."
  type        = string
}

variable "placement" {
  description = "Network, image, size and clients of Dagster: the variable dagster of the root module."
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
  description = "The project's settings, by the names of their environment variables."
  type        = map(string)
}

variable "orchestrator_policy_arn" {
  description = "ARN of the policy that the task role gets."
  type        = string
}

variable "kms_key_arn" {
  description = "ARN of the KMS key that encrypts the logs, the image and the database; null for keys of AWS."
  type        = string
  default     = null
}

variable "logs_days" {
  description = "Days for which logs are kept."
  type        = number
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of the roles; null for none."
  type        = string
  default     = null
}
