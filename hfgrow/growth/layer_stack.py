"""The layers of a loaded model, run again one by one as the model itself called them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hfgrow.errors import ModelError, growth, printable

# How often a block is run; damped, every pass adds its share.
TIMES = 2


@dataclass(frozen=True, slots=True)
class _Call:
    """How the model called a layer, but for the stream, and what the layer returned."""

    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    returned: Any


@dataclass(eq=False)
class LayerStack:
    """The layers of a model, run one by one as the model itself ran them.

    Attributes:
        model: The model.
        path: The name of the list of its layers.
        ends: The modules of a layer that end its branches, where they are to be damped.
        states: The residual stream before every layer, and at last behind them all.
    """

    model: Any
    path: str
    ends: Sequence[str]
    states: list[Any] = field(default_factory=list)
    _calls: list[_Call] = field(default_factory=list)
    _factor: float = 1.0

    def __post_init__(self) -> None:
        self.layers = self.model.get_submodule(self.path)
        for layer in self.layers:
            for end in self.ends:
                layer.get_submodule(end).register_forward_hook(self._scaled)

    @property
    def damps(self) -> bool:
        """Whether blocks are damped."""
        return bool(self.ends)

    def _scaled(self, module: Any, given: Any, returned: Any) -> Any:
        return returned if self._factor == 1.0 else self._factor * returned

    def run(self, layer: int, stream: Any, *, damped: bool = False) -> Any:
        """Run a layer on a residual stream [1, num_tokens, hidden_size]."""
        call = self._calls[layer]
        self._factor = 1 / TIMES if damped else 1.0
        returned = self.layers[layer](stream, *call.arguments, **call.keywords)
        self._factor = 1.0
        return _stream_of(returned)

    def record(self, tokens: Any) -> float:
        """Run the model plainly over token ids [1, num_tokens], remember it; return the loss.

        Raises:
            ModelError: Layers hand each other more than the stream, or are not called in order.
        """
        self.states, self._calls = [], []
        given: list[tuple[int, Any, Sequence[Any], Mapping[str, Any]]] = []

        def before(layer: int, arguments: Any, keywords: Any) -> None:
            keywords = dict(keywords)
            stream = arguments[0] if arguments else keywords.pop("hidden_states")
            given.append((layer, stream, arguments[1:], keywords))

        def behind(returned: Any) -> None:
            _, stream, arguments, keywords = given[-1]
            self.states.append(stream)
            self._calls.append(_Call(arguments, keywords, returned))

        hooks = []
        for i, layer in enumerate(self.layers):
            hooks.append(
                layer.register_forward_pre_hook(
                    lambda _, a, k, i=i: before(i, a, k), with_kwargs=True
                )
            )
            hooks.append(layer.register_forward_hook(lambda _, a, returned: behind(returned)))
        try:
            loss = self._loss(tokens)
        finally:
            for hook in hooks:
                hook.remove()
        if [layer for layer, *_ in given] != list(range(len(self.layers))):
            raise self._refused("are not run once each, in order")
        self._check_calls()
        self.states.append(_stream_of(self._calls[-1].returned))
        return loss

    def loss(self, tokens: Any, stream: Any) -> float:
        """Return the loss of the model with a residual stream of ours behind its layers."""
        with self._standing_in(stream):
            return self._loss(tokens)

    def _loss(self, tokens: Any) -> float:
        return float(self.model(tokens, labels=tokens, use_cache=False).loss)

    @contextmanager
    def _standing_in(self, stream: Any) -> Iterator[None]:
        """Have every layer return what it did in the plain pass, and the last one a stream."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            returned = self._calls[i].returned
            if i == last:
                returned = (stream, *returned[1:]) if isinstance(returned, tuple) else stream
            layer.forward = lambda *_, returned=returned, **__: returned
        try:
            yield
        finally:
            for layer in self.layers:
                # The class has its own.
                del layer.forward

    def _check_calls(self) -> None:
        """Refuse layers that could not be run in another order: the stream must be all they share.

        A layer must get just what the one before it returned, nothing else that layers compute, and
        nothing that they could write into.
        """
        computed: set[int] = set()
        for i, call in enumerate(self._calls):
            if i and self.states[i] is not _stream_of(self._calls[i - 1].returned):
                raise self._refused("do not get the stream as the layer before them left it")
            for value in (*call.arguments, *call.keywords.values()):
                if not _is_plain(value) or id(value) in computed:
                    raise self._refused("hand each other more than the residual stream")
            if isinstance(call.returned, tuple):
                computed |= {id(one) for one in call.returned[1:] if one is not None}

    def _refused(self, why: str) -> ModelError:
        kind = printable(self.model.config.model_type)
        return ModelError(
            f"the layers of a {kind} {why}, so they cannot be repeated one by one in memory",
            hint=f"grow candidates and compare them: {growth('partial', pattern='PATTERN')}",
        )


def _stream_of(returned: Any) -> Any:
    return returned[0] if isinstance(returned, tuple) else returned


def _is_plain(value: Any) -> bool:
    """Say whether a layer cannot leave anything in an argument for the next one."""
    import torch

    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (torch.Tensor, bool, int, float, str, type(None)))
