"""AWS for the tests: moto's server with corrections, and a proxy that loses requests and responses."""
