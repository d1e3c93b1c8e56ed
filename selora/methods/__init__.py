"""The methods of the study. Adding one is a file beside this one and a line here."""

from importlib import import_module

METHODS = {
    "base": "base.Base",
    "lora": "lora.LoRA",
    "selora": "selora.SelfExpandingLoRA",
}


def method_class(name: str):
    """The class of a method, imported on first use since PEFT takes seconds to load.

    Raises:
        ValueError: for an unknown name, with the choices.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method '{name}': choose from {', '.join(METHODS)}")
    module, cls = METHODS[name].split(".")
    return getattr(import_module(f"selora.methods.{module}"), cls)
