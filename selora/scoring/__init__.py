"""Figures of generated images: encoders, classifiers and metrics, none of which knows another."""

# Encoders and classifiers that come with the repository or an installed package; others are fetched when first used.
SHIPPED = ("efficientnet-lite0", "mini-clip", "mini-findings")
