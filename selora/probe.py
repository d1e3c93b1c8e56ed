"""The hooks of a probing step: they see each LoRA layer's inputs and gradients in the ordinary forward and backward
pass, and tell which of them belong to the same samples.

A *part* is what a set of samples goes through: forward passes and backward passes that are connected, since a backward
pass reached several forward passes (a text encoder's and a U-Net's; guidance in two calls), or several backward passes
reached one (two losses over one graph). Within a part a sample's gradients of a layer are summed; another part (of an
accumulated batch) holds other samples.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, combinations

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from selora.adapters import lora_pair
from selora.fisher import Gradients, add_gradients
from selora.layout import REMEDY, Forward, check_rows, leading

Key = tuple[str, str]  # (network, layer)


@dataclass
class Part:
    """Connected forward and backward passes, and each layer's gradients by sample, summed over them."""

    forwards: set[Forward] = field(default_factory=set)
    passes: set[int] = field(default_factory=set)
    sizes: dict[int, str] = field(default_factory=dict)  # numbers of samples, and a layer that saw each
    gradients: dict[Key, list[Gradients]] = field(default_factory=dict)

    def add(self, key: Key, gradients: list[Gradients]) -> None:
        self.gradients[key] = add_gradients(self.gradients[key], gradients) if key in self.gradients else gradients

    def count(self, sizes: Mapping[int, str]) -> None:
        """Raises ValueError where layers saw different numbers of samples: a sum over their rows would mean nothing."""
        self.sizes |= sizes
        if len(self.sizes) > 1:
            saw = ", ".join(f"{name} saw {size}" for size, name in self.sizes.items())
            raise ValueError(
                f"layers saw different numbers of samples before one backward pass: {saw}. On probing steps give each "
                "network every sample, with its own prompt (no list of unique prompts, no input of batch 1 that is "
                f"broadcast). If they hold all samples, {REMEDY}"
            )

    def absorb(self, other: "Part") -> None:
        self.count(other.sizes)
        self.forwards |= other.forwards
        self.passes |= other.passes
        for key, gradients in other.gradients.items():
            self.add(key, gradients)


@dataclass(frozen=True)
class Entrance:
    """A module with a LoRA layer inside, or one itself: it may be called from outside."""

    name: str  # for messages
    module: nn.Module
    sequence_first: bool  # its network holds modules that expect (T, N, d)


def entrances(networks: Mapping[str, nn.Module], layers: Iterable[Key]) -> list[Entrance]:
    """All modules of some networks with one of the given LoRA layers inside."""
    layers, found = list(layers), []
    for net, network in networks.items():
        sequence_first = any(getattr(m, "batch_first", True) is False for m in network.modules())
        names = {"": None}  # in order
        for name in (name for owner, name in layers if owner == net):
            names |= dict.fromkeys(accumulate(name.split("."), "{}.{}".format))
        for name in names:
            title = f"'{name}' of {net}" if name else net
            found.append(Entrance(title, network.get_submodule(name), sequence_first))
    return found


class Probe:
    """Watches one step's forward and backward passes, however many.

    Args:
        doors: the `entrances` of the networks.
        measure: gives the gradients by sample of a layer, from its key, the layer, its inputs (N, T, d_in) and the loss
            gradients at its output (N, T, d_out), of one call and one backward pass.
        settle: takes the gradients of all layers in a part, and its number of samples.
        say: takes a warning.
    """

    def __init__(
        self,
        doors: list[Entrance],
        measure: Callable[[Key, LoraLinear, torch.Tensor, torch.Tensor], list[Gradients]],
        settle: Callable[[dict[Key, list[Gradients]], int], None],
        say: Callable[[str], None],
    ):
        self.doors, self.measure, self.settle, self.say = doors, measure, settle, say
        self.live = True  # a graph may outlive the step
        self.seen: set[Key] = set()  # layers that were called
        self._parts: list[Part] = []  # those that may still go on
        self._closed: set[Forward] = set()
        self._sizes: set[int] = set()  # of the parts so far
        self._outer: dict[int, int] = {}  # backward passes inside a backward pass (reentrant checkpointing)

    # ---- forward ----------------------------------------------------------------------------------------------------

    def watch_networks(self, batch_size: int | None) -> list[RemovableHandle]:
        """Hooks that tell calls of a network from outside; after those of `watch`, which have to run first."""
        self._current: Forward | None = None  # the call of a network that is under way
        self._depth, self._orders = 0, set[str]()
        handles = []
        for door in self.doors:
            enter = partial(self._enter, door, batch_size)
            handles.append(door.module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(door.module.register_forward_hook(self._leave, always_call=True))
        return handles

    def _enter(self, door: Entrance, batch_size: int | None, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._depth += 1
        if self._depth == 1:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)]
            born = torch._C._current_graph_task_id()  # -1: not within a backward pass
            if born == -1:
                self.close()  # the forward passes before it, as far as they were differentiated
            self._current = Forward(door.name, module, inputs, batch_size, door.sequence_first, born)
            self._orders |= {self._current.order()} - {None}

    def _leave(self, module, args, output) -> None:
        self._depth -= 1
        if self._depth == 0:
            for leaf in tree_leaves(output):
                if torch.is_tensor(leaf) and leaf.requires_grad:
                    leaf.register_hook(partial(self._reached, self._current))
            self._current = None

    def watch(self, key: Key, layer: LoraLinear) -> list[RemovableHandle]:
        """Hooks that see a layer's calls."""
        x, (lora_A, lora_B) = None, lora_pair(layer)
        with torch.enable_grad():  # the node that collects B's gradient; none if it is frozen
            node = lora_B.weight.expand_as(lora_B.weight).grad_fn
        trains = node and node.next_functions[0][0]

        def after_A(_, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            nonlocal x
            x = inputs[0].detach()  # after LoRA's dropout, unlike the layer's own input
            self.seen.add(key)

        def after_layer(_, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            nonlocal x
            if output.requires_grad and x is not None:  # not in the gradient-free pass of gradient checkpointing
                output.register_hook(partial(self._arrived, key, layer, trains, x, self._current))
            x = None

        return [lora_A.register_forward_hook(after_A), layer.register_forward_hook(after_layer)]

    # ---- backward ---------------------------------------------------------------------------------------------------

    def _arrived(self, key: Key, layer: LoraLinear, trains, x: torch.Tensor, forward: Forward, gradient) -> None:
        """A gradient (..., d_out) reached the output of a layer's call with inputs (..., d_in)."""
        if not self.live:
            return
        if gradient.requires_grad:
            raise ValueError(
                "a backward pass with create_graph=True (a gradient penalty?) cannot be read: gradients of gradients "
                "do not pass through the layers' outputs. Leave that term out on probing steps"
            )
        if not trains or not torch._C._will_engine_execute_node(trains):
            return  # a gradient of something else: of the input, for an adversarial example
        part = self._join(forward)
        name, N, first = f"'{key[1]}' of {key[0]}", forward.batch_size, 1
        if N is None:
            N = check_rows(name, x, forward)
        else:
            first = leading(name, x, forward, self._orders, self.say)
        part.count({N: name})
        x, d = (t.reshape(first, N, -1, t.shape[-1]).transpose(0, 1).flatten(1, 2) for t in (x, gradient))
        part.add(key, self.measure(key, layer, x, d))

    def _reached(self, forward: Forward, gradient: torch.Tensor) -> None:
        """A gradient reached what a network gave out: this ties passes together that no layer's own calls would."""
        if self.live:
            self._join(forward)

    def _join(self, forward: Forward) -> Part:
        """The part of a forward pass that the backward pass in progress has reached."""
        task = torch._C._current_graph_task_id()
        if forward.born not in (-1, task):  # recomputed by that pass, differentiated in one of its own
            self._outer[task] = self._outer.get(forward.born, forward.born)
        task = self._outer.get(task, task)
        if forward in self._closed:
            raise ValueError(
                f"a backward pass reached {forward.name} again, after another forward pass had begun: on probing steps "
                "make all backward passes over one graph before the next forward pass"
            )
        part = Part({forward}, {task})
        for other in [p for p in self._parts if forward in p.forwards or task in p.passes]:
            self._parts.remove(other)
            other.absorb(part)
            part = other
        self._parts.append(part)
        return part

    def close(self) -> None:
        """End the parts there are: what comes next is of other samples."""
        for part in self._parts:
            self._check_repeated(part)
            for N in part.sizes:
                self._sizes.add(N)
                self._say_what_is_assumed(part, N)
                self.settle(part.gradients, N)
            for forward in part.forwards:
                forward.inputs = []
            self._closed |= part.forwards
        self._parts = []

    def _check_repeated(self, part: Part) -> None:
        """Two calls before one backward pass: guidance, or two halves of a batch with one loss?"""
        for one, two in combinations(part.forwards, 2):
            again = one.module is two.module and one.born == two.born == -1
            if again and one.batch_size is None and not one.repeats(two):
                raise ValueError(
                    f"one backward pass reached two calls of {one.name} with different inputs. If both are of the "
                    "same samples (two views, two prompts), say so: probe(step, batch_size=N), N the samples of one "
                    "call. If not, call backward for each by itself"
                )

    def _say_what_is_assumed(self, part: Part, N: int) -> None:
        if not any(forward.batch_size or forward.confirms(N) for forward in part.forwards):
            self.say(
                f"the first axis of the layers' inputs is taken for the samples ({N} here). If it is not (tokens "
                f"flattened, sequences first), or to have it checked, {REMEDY}"
            )
        for forward in part.forwards:
            if forward.born == -1 and forward.batch_size is None and (size := forward.copied()):
                self.say(
                    f"{forward.name} was given copies of the same {size} rows, each taken for a sample. If they "
                    f"are one sample's (guidance), say so: probe(step, batch_size={size}); else batch_size={N}"
                )
        if len(self._sizes) > 1:
            self.say(
                f"parts of {' and '.join(map(str, sorted(self._sizes)))} samples are accumulated: each part's loss is "
                "taken for the mean over its own samples, and weighted to give the mean over all. If losses are sums, "
                "or are divided by the size of the whole batch, use equal parts on probing steps"
            )
