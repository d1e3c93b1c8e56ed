"""Figures of generated images: encoders, classifiers and metrics, none of which knows another."""
