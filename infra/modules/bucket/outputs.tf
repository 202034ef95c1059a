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
