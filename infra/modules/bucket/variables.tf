variable "name" {
  description = "The bucket's name."
  type        = string
}

variable "kms_key_arn" {
  description = "The key that objects are encrypted with; null for S3's own."
  type        = string
  default     = null
}

variable "noncurrent_days" {
  description = "For how many days versions that are not the newest are kept."
  type        = number
}

variable "expiration_days" {
  description = "After how many days every object is deleted; null for never."
  type        = number
  default     = null
}

variable "rules" {
  description = "What becomes of objects below prefixes."
  type = map(object({
    prefix                 = string
    expiration_days        = optional(number)
    instant_retrieval_days = optional(number)
  }))
  default = {}
}

variable "logs_requests" {
  description = "Whether requests are logged, which those to the bucket of the logs are not."
  type        = bool
  default     = true
}

variable "log_bucket" {
  description = "The bucket that requests are logged to."
  type        = string
  default     = null
}

variable "policy_documents" {
  description = "Statements of the bucket's policy besides the one that asks for TLS."
  type        = list(string)
  default     = []
}

variable "force_destroy" {
  description = "Whether the bucket is destroyed with what is in it."
  type        = bool
}
