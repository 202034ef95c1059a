output "repository_url" {
  description = "Where the image is pushed to."
  value       = aws_ecr_repository.this.repository_url
}

output "cluster" {
  description = "The ECS cluster of the service of the same name."
  value       = aws_ecs_cluster.this.name
}

output "web_port" {
  description = "The port of the UI at the task's private address."
  value       = local.web
}
