"""Figures from the files and tables of runs, without torch: each function returns a matplotlib figure."""
