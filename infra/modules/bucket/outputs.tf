output "name" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.bucket

  # The bucket's policy is in place before other resources use the name, such as buckets that log to this one.
  depends_on = [aws_s3_bucket_policy.this]
}

output "arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.this.arn
}

output "expiration_days" {
  description = "Days after which every object is deleted; 0 for never."
  value       = one(aws_s3_bucket_lifecycle_configuration.this.rule[0].expiration).days
}

output "rules" {
  description = "Names of the lifecycle rules."
  value       = [for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.id]
}
