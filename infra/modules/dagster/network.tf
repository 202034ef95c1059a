# Security groups: clients reach the UI, the service reaches the database and AWS.

resource "aws_security_group" "service" {
  name        = "${local.family}-service"
  description = "Dagster of ${var.name}"
  vpc_id      = var.placement.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "web" {
  for_each = var.placement.client_cidr_blocks

  security_group_id = aws_security_group.service.id
  description       = "UI"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = local.web_port
  to_port           = local.web_port
}

resource "aws_vpc_security_group_egress_rule" "aws" {
  security_group_id = aws_security_group.service.id
  description       = "AWS services through a NAT gateway or VPC endpoints, whose addresses change"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "database" {
  security_group_id            = aws_security_group.service.id
  description                  = "Database of Dagster"
  referenced_security_group_id = aws_security_group.database.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_security_group" "database" {
  name        = "${local.family}-database"
  description = "Database of Dagster of ${var.name}"
  vpc_id      = var.placement.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  description                  = "Dagster"
  referenced_security_group_id = aws_security_group.service.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}
