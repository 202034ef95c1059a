# One task with three containers of one image: the code server, in which runs live, the daemon and the web server. They
# speak to each other on the task's own loopback. There is never a second task: two daemons would start each run twice.

locals {
  family        = "${var.name}-dagster"
  web           = 3000
  database_logs = toset(["postgresql", "upgrade"])
  working       = "/var/lib/dagster" # What a run has on disk, and the logs that the UI shows of it.

  environment = merge(var.settings, {
    AWS_REGION              = var.region
    DAGSTER_POSTGRES_HOST   = aws_db_instance.this.address
    DAGSTER_POSTGRES_DB     = aws_db_instance.this.db_name
    DAGSTER_POSTGRES_USER   = aws_db_instance.this.username
    DAGSTER_GRPC_HOST       = "127.0.0.1"
    PYTHONDONTWRITEBYTECODE = "1"
  })

  commands = {
    code   = ["dagster", "code-server", "start", "--host", "127.0.0.1", "--port", "4000", "--module-name", "telemetry_assets.definitions"]
    daemon = ["dagster-daemon", "run", "--workspace", "/opt/dagster/workspace.yaml"]
    web    = ["python", "-m", "telemetry_assets.webserver", "--host", "0.0.0.0", "--port", tostring(local.web), "--workspace", "/opt/dagster/workspace.yaml"]
  }

  # Seldom and patiently: a run may take every CPU of the task for minutes.
  health = {
    code   = ["CMD", "dagster", "api", "grpc-health-check", "--host", "127.0.0.1", "--port", "4000"]
    daemon = ["CMD", "dagster-daemon", "liveness-check"]
    web    = ["CMD", "python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:${local.web}/server_info', timeout=5)"]
  }
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136: Encrypted with the account's key where it has one.
  name                 = local.family
  image_tag_mutability = "IMMUTABLE"
  force_delete         = true # An image is built anew from the project.

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
  #checkov:skip=CKV_AWS_158: Encrypted with the account's key where it has one.
  #checkov:skip=CKV_AWS_338: How long logs are kept is the account's decision (logs_days).
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
      # SIGTERM, which the image's tini passes to every process, lets a run tell its remote steps; SIGKILL follows, 30 s
      # later when the code server no longer waits for its runs, and at the latest after these seconds.
      stopTimeout  = 120
      portMappings = name == "web" ? [{ containerPort = local.web, protocol = "tcp" }] : []
      environment  = [for variable, value in local.environment : { name = variable, value = value }]
      secrets      = [{ name = "DAGSTER_POSTGRES_PASSWORD", valueFrom = "${aws_db_instance.this.master_user_secret[0].secret_arn}:password::" }]
      dependsOn    = name == "code" ? [] : [{ containerName = "code", condition = "HEALTHY" }]
      mountPoints  = [{ sourceVolume = "working", containerPath = local.working }, { sourceVolume = "tmp", containerPath = "/tmp" }]
      healthCheck  = { command = local.health[name], interval = 60, timeout = 30, retries = 10, startPeriod = 120 }
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

  # The old task ends before the new one begins. What it was at is taken up where it was left.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100

  network_configuration {
    subnets          = var.placement.subnet_ids
    security_groups  = [aws_security_group.service.id]
    assign_public_ip = false
  }
}
