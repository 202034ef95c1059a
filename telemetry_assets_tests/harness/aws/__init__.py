"""AWS for the tests: moto's server with corrections, and a proxy on which requests and answers are lost."""
