"""SeLoRA: low-rank adapters whose ranks grow during training, guided by Fisher information.

In it: the paper's equations (`adapters` 1, `expansion` 2, `fisher` 3 to 5), `export`, and the study's packages.
Into these modules: what works on any PEFT model with torch, PEFT, accelerate and safetensors alone.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["SeLoRA", "linear_layers", "save_lora"]

_WHERE = {"SeLoRA": "selora.expansion", "linear_layers": "selora.adapters", "save_lora": "selora.export"}


def __getattr__(name: str):
    # Imported on first use: torch and PEFT take seconds to load, and reading results needs neither.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'selora' has no attribute '{name}'")
