"""What is asked of the runs, the metrics and the paper beyond the study's own table."""
