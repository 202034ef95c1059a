"""What only the services of AWS have, and the harness that stands for them."""
