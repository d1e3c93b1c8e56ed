"""The base model untouched: what every method starts from."""

from selora.methods.method import Method


class Base(Method):
    trains = False
