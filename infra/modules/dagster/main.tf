# One ECS task with three containers of one image: the code server, which also executes runs, the daemon and the web
# server. They communicate over the loopback interface of the task. There must never be a second task: two daemons would
# launch each run twice.

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136: Encrypted with a KMS key if one is configured.
  name                 = local.family
  image_tag_mutability = "IMMUTABLE"
  force_delete         = true # Images can be built again from the project.

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = var.kms_key_arn == null ? "AES256" : "KMS"
    kms_key         = var.kms_key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name

  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "What was run before, to go back to"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 20 }
      action       = { type = "expire" }
    }]
  })
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158: Encrypted with a KMS key if one is configured.
  #checkov:skip=CKV_AWS_338: The retention period is configurable (logs_days).
  name              = "/${var.name}/dagster"
  retention_in_days = var.logs_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_ecs_cluster" "this" {
  name = local.family

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_task_definition" "this" {
  family                   = local.family
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.placement.cpu
  memory                   = var.placement.memory_mb
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  volume {
    name = "working"
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    for name, command in local.commands : {
      name                   = name
      image                  = "${aws_ecr_repository.this.repository_url}:${var.placement.image_tag}"
      command                = command
      essential              = true
      readonlyRootFilesystem = true
      linuxParameters        = { capabilities = { drop = ["ALL"] } }
      # The image's tini forwards SIGTERM to all processes, so that runs can cancel remote steps. The container ends
      # when the code server has waited 30 s for its runs; ECS sends SIGKILL after stopTimeout seconds at the latest.
      stopTimeout  = 120
      portMappings = name == "web" ? [{ containerPort = local.web_port, protocol = "tcp" }] : []
      environment  = [for variable, value in local.environment : { name = variable, value = value }]
      secrets      = [{ name = "DAGSTER_POSTGRES_PASSWORD", valueFrom = "${aws_db_instance.this.master_user_secret[0].secret_arn}:password::" }]
      dependsOn    = name == "code" ? [] : [{ containerName = "code", condition = "HEALTHY" }]
      mountPoints  = [{ sourceVolume = "working", containerPath = local.working_directory }, { sourceVolume = "tmp", containerPath = "/tmp" }]
      # Long intervals and timeouts: a run can use all CPUs of the task for minutes.
      healthCheck = { command = local.health[name], interval = 60, timeout = 30, retries = 10, startPeriod = 120 }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.this.name
          awslogs-region        = var.region
          awslogs-stream-prefix = name
        }
      }
    }
  ])
}

resource "aws_ecs_service" "this" {
  name            = local.family
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this.arn
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"
  desired_count   = 1

  # The old task stops before the new one starts. The next runs continue interrupted work.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100

  network_configuration {
    subnets          = var.placement.subnet_ids
    security_groups  = [aws_security_group.service.id]
    assign_public_ip = false
  }
}
