"""The study: runs named by profile, data set, method and seed, and what is made of them."""

from selora.files import check_clone

check_clone(__name__)
