resource "aws_emrserverless_application" "this" {
  count = local.use_emr_serverless ? 1 : 0

  name          = var.name
  type          = "spark"
  release_label = var.emr_release
  architecture  = var.emr_architecture

  auto_start_configuration {
    enabled = true
  }

  auto_stop_configuration {
    enabled              = true
    idle_timeout_minutes = var.emr_idle_minutes
  }

  maximum_capacity {
    cpu    = "${var.emr_maximum_capacity.vcpu} vCPU"
    memory = "${var.emr_maximum_capacity.memory_gb} GB"
    disk   = "${var.emr_maximum_capacity.disk_gb} GB"
  }

  dynamic "network_configuration" {
    for_each = var.emr_network[*]

    content {
      subnet_ids         = network_configuration.value.subnet_ids
      security_group_ids = network_configuration.value.security_group_ids
    }
  }
}
