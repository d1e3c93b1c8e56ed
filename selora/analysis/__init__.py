"""In it: what is asked of the runs, the metrics and the paper beyond the study's own table.
May enter: a question with a notebook that shows its answer; it may import all else, and nothing imports it.
"""
