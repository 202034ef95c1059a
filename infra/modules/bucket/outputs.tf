output "name" {
  description = "The bucket's name."
  value       = aws_s3_bucket.this.bucket

  # Whoever takes the name, such as another bucket for its logs, is let in by then.
  depends_on = [aws_s3_bucket_policy.this]
}

output "arn" {
  description = "The bucket's ARN."
  value       = aws_s3_bucket.this.arn
}

output "expiration_days" {
  description = "After how many days every object is deleted; 0 for never."
  value       = one(aws_s3_bucket_lifecycle_configuration.this.rule[0].expiration).days
}

output "rules" {
  description = "The names of the rules of what the bucket keeps."
  value       = [for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.id]
}
