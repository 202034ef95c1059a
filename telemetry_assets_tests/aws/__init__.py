"""AWS for the tests: moto's server put right, and a way to it on which requests and answers get lost."""
