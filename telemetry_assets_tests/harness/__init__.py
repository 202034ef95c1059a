"""What tests run on: deployments, documents, a local AWS, running Dagsters and processes that kill themselves."""
