"""In it: scores of generated images; encoders, a CLIP, classifiers and metrics, none of which knows another.
May enter: a judge that a profile or a notebook names, or a metric of two sets of features.
"""

# Encoders and classifiers that come with the repository or an installed package; others are fetched when first used.
SHIPPED = ("efficientnet-lite0", "mini-clip", "mini-findings")
