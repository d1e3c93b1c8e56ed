"""In it: the method in other people's training loops: a callback for transformers' Trainer.
May enter: one file per loop, which drives `SeLoRA` and nothing else. A loop of one's own needs none: docs/elsewhere.md.
"""

from selora.integrations.trainer import SeLoRACallback

__all__ = ["SeLoRACallback"]
