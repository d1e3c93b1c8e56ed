"""In it: adapters as files, for diffusers, PEFT and the kohya tools: written, converted, recompressed, with a card.
May enter: a format, one function from an `Adapter` to its files; torch, PEFT and safetensors suffice.
"""

from selora.export.adapter import Adapter, read_adapter
from selora.export.formats import export
from selora.export.models import save_lora
from selora.export.shrink import shrink

__all__ = ["Adapter", "export", "read_adapter", "save_lora", "shrink"]
