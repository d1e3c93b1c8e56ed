"""In it: how the real data and models of the paper's scale are fetched, once; runs read the disk from then on.
May enter: a source with its address, terms and size (`sources`); the only code that uses the network.
"""

from selora.files import check_clone

check_clone(__name__)
