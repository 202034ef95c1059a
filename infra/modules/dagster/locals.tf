locals {
  family            = "${var.name}-dagster"
  web_port          = 3000
  database_logs     = toset(["postgresql", "upgrade"])
  working_directory = "/var/lib/dagster" # Local artifacts of runs, and their compute logs.

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
    web    = ["python", "-m", "telemetry_assets.webserver", "--host", "0.0.0.0", "--port", tostring(local.web_port), "--workspace", "/opt/dagster/workspace.yaml"]
  }

  health = {
    code   = ["CMD", "dagster", "api", "grpc-health-check", "--host", "127.0.0.1", "--port", "4000"]
    daemon = ["CMD", "dagster-daemon", "liveness-check"]
    web    = ["CMD", "python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:${local.web_port}/server_info', timeout=5)"]
  }
}
