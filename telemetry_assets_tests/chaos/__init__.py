"""The history checker: random schedules of deployments with kills, faults and pauses, each checked at its end."""
