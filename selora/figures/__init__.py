"""In it: pictures and plots from the files and tables of runs; each function returns a matplotlib figure.
May enter: a figure that a notebook shows, made without torch.
"""
