"""In it: what a study found: Table 1, comparisons, the page, and what is published of them.
May enter: what is made from the files of finished runs alone, without torch.
"""
