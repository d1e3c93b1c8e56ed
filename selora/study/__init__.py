"""In it: the study, runs named by profile, data set, method and seed, and what is made of them; it needs a clone.
May enter: what names, makes, checks or reads runs; it knows methods, data sets and judges by name alone.
"""

from selora.files import check_clone

check_clone(__name__)
