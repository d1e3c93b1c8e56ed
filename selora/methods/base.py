"""The base model untouched: the floor of every comparison."""

from selora.methods.method import Method


class Base(Method):
    trains = False
