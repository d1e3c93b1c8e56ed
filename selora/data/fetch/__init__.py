"""The real data and models of the paper's scale, fetched once and read from the disk from then on."""

from selora.files import check_clone

check_clone(__name__)
