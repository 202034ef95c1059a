output "repository_url" {
  description = "URL of the ECR repository for the image."
  value       = aws_ecr_repository.this.repository_url
}

output "cluster" {
  description = "Name of the ECS cluster. The ECS service has the same name."
  value       = aws_ecs_cluster.this.name
}

output "web_port" {
  description = "Port of the UI at the task's private address."
  value       = local.web_port
}
