"""What tests run on: deployments, documents, AWS, running Dagsters, programs that kill themselves."""
