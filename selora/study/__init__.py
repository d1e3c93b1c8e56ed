"""The study: runs named by profile, data set, method and seed, and what is made of them."""
