variable "name" {
  description = "Name of the bucket."
  type        = string
}

variable "kms_key_arn" {
  description = "ARN of the KMS key that encrypts objects; null for SSE-S3."
  type        = string
  default     = null
}

variable "noncurrent_days" {
  description = "Days for which noncurrent versions are kept."
  type        = number
}

variable "expiration_days" {
  description = "Days after which every object is deleted; null for never."
  type        = number
  default     = null
}

variable "rules" {
  description = "Lifecycle rules by name: the prefix of the objects, the days after which they are deleted, and the days after which they move to S3 Glacier Instant Retrieval."
  type = map(object({
    prefix                 = string
    expiration_days        = optional(number)
    instant_retrieval_days = optional(number)
  }))
  default = {}
}

variable "logs_requests" {
  description = "Whether access logging is enabled. It must be false for the bucket that contains the access logs."
  type        = bool
  default     = true
}

variable "log_bucket" {
  description = "Name of the bucket for access logs. Required if logs_requests is true."
  type        = string
  default     = null
}

variable "policy_documents" {
  description = "IAM policy documents, as JSON, to merge into the bucket's policy, which requires TLS."
  type        = list(string)
  default     = []
}

variable "force_destroy" {
  description = "Whether `terraform destroy` deletes the bucket even if it contains objects."
  type        = bool
}
