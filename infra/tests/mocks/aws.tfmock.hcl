# Mocked values for attributes that a test or the provider's validation requires in a valid format.

mock_data "aws_caller_identity" {
  defaults = { account_id = "111122223333" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_data "aws_iam_policy_document" {
  defaults = { json = "{\"Version\": \"2012-10-17\", \"Statement\": []}" }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/0123" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::111122223333:role/mocked" }
}

mock_resource "aws_iam_policy" {
  defaults = { arn = "arn:aws:iam::111122223333:policy/mocked" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:eu-central-1:111122223333:mocked" }
}

mock_resource "aws_emrserverless_application" {
  defaults = {
    id  = "00f1a2b3c4d5e6f7"
    arn = "arn:aws:emr-serverless:eu-central-1:111122223333:/applications/00f1a2b3c4d5e6f7"
  }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:/mocked" }
}

mock_resource "aws_db_instance" {
  defaults = {
    address = "dagster.mocked.eu-central-1.rds.amazonaws.com"
    master_user_secret = [{
      kms_key_id    = ""
      secret_arn    = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mocked"
      secret_status = "active"
    }]
  }
}
