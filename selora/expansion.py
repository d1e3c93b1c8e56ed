"""SeLoRA: growing plain PEFT LoRA layers by Fisher information (Eq. 2, Eq. 5 and Algorithm 1 of the paper).

Growing a layer appends the tested row K to `lora_A.weight` and a zero column to `lora_B.weight`; the output is
unchanged, W0 x + s [B 0] [A; K] x = W0 x + s B A x, and training goes on with one rank more.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from accelerate.utils import reduce
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from selora.adapters import ADAPTER, all_lora_layers, draw_row, record_rank, set_weights
from selora.fisher import fi_ratio, squared_gradients


class SeLoRA:
    """Controller that grows the LoRA layers of one or several models while a plain training loop trains them.

    Args:
        models: models with a plain PEFT LoRA adapter on their linear layers; as a mapping, its keys name the networks
            in the records, else their classes do.
        optimizer: the optimizer of the adapters; per-entry state (Adam's moments) is carried over when a layer grows.
        threshold: the paper's lambda, a layer grows where its FI-Ratio is at least this; 1 grows every layer.
        interval: the paper's t, steps between two tests.
        seed: seed of the candidate rows; with the step it determines them, so a resumed run draws the same ones.

    Raises:
        ValueError: for a threshold below 1 (the FI-Ratio never is), an interval below 1, or models without LoRA layers.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module] | Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        threshold: float = 1.1,
        interval: int = 40,
        seed: int = 0,
    ):
        if not threshold >= 1:  # written so that NaN is refused too
            raise ValueError(
                f"threshold is {threshold}, but an FI-Ratio is never below 1: choose 1 (grow always) or more"
            )
        if interval < 1:
            raise ValueError(f"interval is {interval}: choose the number of steps between two tests, 1 or more")
        self.networks = dict(models) if isinstance(models, Mapping) else {type(m).__name__: m for m in models}
        if len(self.networks) < len(models):
            raise ValueError("two models share a class: pass them by name, SeLoRA({'first': model, ...}, ...)")
        self.layers = all_lora_layers(self.networks)
        if not self.layers:
            raise ValueError("no LoRA layers found: call model.add_adapter(LoraConfig(...)) on the models first")
        held = {p for group in optimizer.param_groups for p in group["params"]}
        for (net, name), layer in self.layers.items():
            if layer.use_rslora[ADAPTER] or layer.lora_bias[ADAPTER] or ADAPTER in layer.lora_variant:
                raise ValueError(f"{name} of {net} is not plain LoRA: use_rslora, use_dora, lora_bias have to be False")
            if not {layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight} <= held:
                raise ValueError(f"{name} of {net} would grow but not train: the optimizer lacks its LoRA parameters")
        self.optimizer, self.threshold, self.interval, self.seed = optimizer, threshold, interval, seed
        self._rows: dict[tuple[str, str], torch.Tensor] = {}  # the candidate K of each layer under test
        self._sums: dict[tuple[str, str], torch.Tensor] = {}  # squared gradients seen, original and candidate

    @contextmanager
    def probe(self, step: int) -> Iterator[None]:
        """Watch the forward and backward passes made inside: on every `interval`-th step all layers are tested.

        The loss must be a mean over samples, the first axis of each layer's input. Several backward passes inside one
        probe (gradient accumulation) count as one larger batch. On other steps this does nothing.
        """
        self._rows.clear()
        self._sums.clear()
        if step % self.interval:
            yield
            return
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        handles = []
        for key, layer in self.layers.items():
            self._rows[key] = draw_row(layer.lora_A[ADAPTER].weight, generator)
            handles += self._watch(key, layer)
        try:
            with torch.compiler.set_stance("force_eager"):  # compiled code does not see hooks
                yield
        except BaseException:
            self._rows.clear()  # half a test is none
            raise
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, key: tuple[str, str], layer: LoraLinear) -> list[torch.utils.hooks.RemovableHandle]:
        x = None

        def after_A(_, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            nonlocal x
            x = inputs[0].detach()  # after LoRA's dropout, unlike the layer's own input

        def after_layer(_, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            nonlocal x
            if output.requires_grad and x is not None:  # not in the gradient-free pass of gradient checkpointing
                output.register_hook(partial(self._add, key, layer, x))
            x = None

        return [layer.lora_A[ADAPTER].register_forward_hook(after_A), layer.register_forward_hook(after_layer)]

    def _add(self, key: tuple[str, str], layer: LoraLinear, x: torch.Tensor, gradient: torch.Tensor) -> None:
        if key in self._rows:  # not after the probe failed
            A, B = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            seen = squared_gradients(x, gradient, A, B, self._rows[key], layer.scaling[ADAPTER])
            self._sums[key] = self._sums[key] + seen if key in self._sums else seen

    def expand(self, step: int) -> list[dict]:
        """Grow every tested layer whose FI-Ratio reached the threshold; call it after the optimizer's step.

        Of several processes (torchrun, accelerate) all must call it: they share their scores and grow the same layers.
        A grown layer holds new parameters: a list of parameters kept elsewhere (for clipping, say) must be read anew,
        and DistributedDataParallel, which keeps one, would no longer average their gradients: average them by yourself
        (`diffusion.machine.average`), as the study's own loop does.

        Returns:
            One record per tested layer: step, network, layer, fi_ratio, rank (after), expanded. Empty on a step without
            a probe.
        """
        if not self._rows:
            return []
        home = next(iter(self._rows.values())).device
        nothing = torch.zeros(2, device=home)
        # stacked where they are, so that a GPU is waited for, and other processes are, once and not once a layer
        sums = reduce(torch.stack([self._sums.get(key, nothing).to(home) for key in self._rows]), "sum").tolist()
        records = []
        for (key, row), (original, candidate) in zip(self._rows.items(), sums, strict=True):
            ratio = fi_ratio(original, candidate)
            if expanded := ratio >= self.threshold:
                self.grow(key, row)
            network, layer = key
            rank = self.layers[key].lora_A[ADAPTER].weight.shape[0]
            records.append(
                {
                    "step": step,
                    "network": network,
                    "layer": layer,
                    "fi_ratio": ratio,
                    "rank": rank,
                    "expanded": expanded,
                }
            )
        self._rows.clear()
        self._sums.clear()
        return records

    def grow(self, key: tuple[str, str], row: torch.Tensor) -> None:
        """Grow a layer, named (network, layer), by a row (1, d_in) of its lora_A (Eq. 2), with its optimizer state."""
        layer, (network, name) = self.layers[key], key
        replaced = append_rank(layer, row)
        for old, new in replaced:
            carry_state(self.optimizer, old, new)
        record_rank(self.networks[network], name, layer)


def append_rank(layer: LoraLinear, row: torch.Tensor) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Append `row` (1, d_in) to lora_A and a zero column to lora_B (Eq. 2).

    Returns:
        The (old, new) pairs of parameters.
    """
    A, B = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    set_weights(layer, torch.cat([A.data, row]), torch.cat([B.data, torch.zeros_like(B.data[:, :1])], dim=1))
    return [(A, layer.lora_A[ADAPTER].weight), (B, layer.lora_B[ADAPTER].weight)]


def carry_state(optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put `new` in the place of `old` in an optimizer; the state of the old entries is kept, that of new ones is zero.

    Raises:
        TypeError: for an optimizer whose state is not one value per entry (factored or quantised moments).
    """
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if old not in optimizer.state:
        return
    state = optimizer.state.pop(old)
    padding = [n for axis in reversed(range(old.ndim)) for n in (0, new.shape[axis] - old.shape[axis])]
    for name, value in state.items():
        if torch.is_tensor(value) and value.shape == old.shape:
            state[name] = nn.functional.pad(value, padding)
        elif (
            torch.is_tensor(value) and value.ndim > 0
        ):  # at rank 1 a factor may be of one entry, or look like the weight
            raise TypeError(
                f"{type(optimizer).__name__} keeps '{name}' in another shape than its parameter: use Adam or AdamW"
            )
    optimizer.state[new] = state
