"""The methods of the study. Adding one is a file beside this one and a line here: its class, and all its settings."""

from importlib import import_module

METHODS = {
    "base": ("base.Base", {}),
    "full": ("full.FullFineTuning", {"learning_rate": 3e-4}),  # its own: the adapters' would destroy the base
    "lora": ("lora.LoRA", {"rank": 4}),  # the paper's r
    "selora": ("selora.SelfExpandingLoRA", {"rank": 1, "threshold": 1.1, "interval": 40}),  # the paper's r0, lambda, t
}


def make_method(name: str, settings: dict, seed: int):
    """A `Method` by its name; its module is imported here and not above, since PEFT takes seconds to load."""
    path, defaults = METHODS[name]
    module, cls = path.split(".")
    return getattr(import_module(f"selora.methods.{module}"), cls)(defaults | settings, seed)
