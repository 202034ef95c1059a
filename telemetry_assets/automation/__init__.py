"""What starts runs: the job that takes uploads to Gold, the upload sensor, the daily schedule."""
