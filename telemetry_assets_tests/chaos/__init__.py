"""The history checker: random lives of deployments, with kills, faults and pauses, each judged at its end."""
