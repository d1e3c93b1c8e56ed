"""The base model untouched: what every method starts from."""

from selora.diffusion.method import Method


class Base(Method):
    trains = False
