"""SeLoRA under transformers' Trainer."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from selora.adapters import adapter_of, lora_layers, lora_pair, ranks, resize
from selora.expansion import SeLoRA
from selora.moments import carry_state


class SeLoRACallback(TrainerCallback, ExportableState):
    """Grow the LoRA layers of a model that transformers' Trainer trains.

        model = get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules=linear_layers(model)))
        trainer = Trainer(model, arguments, train_dataset=..., callbacks=[SeLoRACallback(threshold=1.1, interval=40)])
        trainer.train()  # or trainer.train(resume_from_checkpoint=True): layers take the ranks of the checkpoint

    A step is one of the optimizer's: the parts of an accumulated batch are one test. Clipping, schedulers, mixed
    precision and the optimizer that accelerate wraps are as without it. Checkpoints are PEFT's own, of mixed ranks.
    The model has to be PEFT's (`get_peft_model`), since the Trainer resumes no other adapter, and the callback there
    when the Trainer is made.

    Args:
        threshold, interval, seed: as of `SeLoRA`.

    Attributes:
        records: what `SeLoRA.expand` returned, of all tests so far, those before a checkpoint included.
        ranks: the rank of each LoRA layer by name, once training has begun.

    Raises:
        ValueError: at the Trainer's making, for several processes or GPUs; when training begins, where the checkpoint
            is of other settings or other layers; and as `SeLoRA` does.
    """

    def __init__(self, threshold: float = 1.1, interval: int = 40, seed: int = 0):
        self.threshold, self.interval, self.seed = threshold, interval, seed
        self.records: list[dict] = []
        self.ranks: dict[str, int] = {}
        self._selora: SeLoRA  # once training has begun
        self._probe = ExitStack()
        self._optimizer: torch.optim.Optimizer | None = None

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer,
        **_: Any,
    ) -> None:
        if args.world_size > 1 or args.n_gpu > 1:
            raise ValueError(
                f"SeLoRACallback cannot train over {args.world_size} processes of {args.n_gpu} GPUs, since wrappers "
                "keep a list of parameters: use one GPU (CUDA_VISIBLE_DEVICES=0), or your own loop (docs/elsewhere.md)"
            )
        self._optimizer = optimizer
        for name, layer in lora_layers(model).items():
            layer.register_load_state_dict_pre_hook(partial(self._fit, model, name))

    def _fit(self, model: nn.Module, name: str, layer: LoraLinear, state: dict, prefix: str, *_: Any) -> None:
        """Bring a layer to the rank of the weights that are about to be loaded into it."""
        before = [side.weight for side in lora_pair(layer)]
        names = [f"{prefix}lora_{side}.{adapter_of(layer)}.weight" for side in "AB"]
        saved = [state[name] for name in names if name in state]
        if len(saved) < 2 or saved[0].shape == before[0].shape:
            return
        resize(model, name, *(new.to(old) for new, old in zip(saved, before, strict=True)))
        if self._optimizer:
            for old, side in zip(before, lora_pair(layer), strict=True):
                carry_state(self._optimizer, old, side.weight)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer,
        **_: Any,
    ) -> None:
        self._optimizer, self._probe = optimizer, ExitStack()
        self._selora = SeLoRA([model], optimizer, self.threshold, self.interval, self.seed)
        self.ranks = ranks(model)
        saved = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        if not saved:  # a new training, or one that began without this callback
            self.records = []
            return
        for name, value in self.state()["args"].items():
            if (then := saved["args"][name]) != value:
                raise ValueError(f"{name} was {then} in the checkpoint and is {value}: make them agree")
        if odd := saved["attributes"]["ranks"].items() ^ self.ranks.items():
            raise ValueError(
                f"these LoRA layers are not those of the checkpoint: {sorted({name for name, _ in odd})}. Make the "
                "model with the adapter that training began with"
            )
        self.records = saved["attributes"]["records"]

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._probe.enter_context(self._selora.probe(state.global_step + 1))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._probe.close()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: Any
    ) -> None:
        self.records += self._selora.expand(state.global_step + 1)
        self.ranks = ranks(model)

    def state(self) -> dict:
        """What the Trainer keeps in its checkpoints' trainer_state.json."""
        return {
            "args": {"threshold": self.threshold, "interval": self.interval, "seed": self.seed},
            "attributes": {"records": self.records, "ranks": self.ranks},
        }
