"""A model of language: token numbers in, logits of the word after each token out.

::

    construct(ids)                     [batch, tokens] -> [batch, tokens, words]       predict, train
    Decoder(net, ...)(ids, position)   the new tokens only -> [batch, words]           generate
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import GraphError, ShardingError
from .. import operators
from ..cell import Cell
from ..dtypes import dtypes
from ..initializer import initializer
from ..tensor import Parameter, apply, constant
from .blocks import Cache, Step
from .cuts import UNCUT, Cuts, cuts_of
from .fields import Config, Fields, read_config

__all__ = ["CausalLM", "Decoder", "NextTokenLoss"]

FLOATS = ("float32", "float16", "bfloat16")
QUANTISED = ("quantization_config", "compression_config", "quantization")
"""Fields that say how weights are quantised: of transformers, of compressed-tensors once, of MLX."""


class CausalLM(Cell):
    """The base of the families.

    Parameters
    ----------
    config
        The fields of a `config.json`, that file, or its folder.

    Attributes
    ----------
    layers, heads, key_heads, head_size
        Of attention.
    words
        The size of the vocabulary.
    most_tokens
        How many positions there are.

    Raises
    ------
    GraphError
        If a field is missing, out of bounds, or asks for what is not supported.
    """

    rules = ""
    """The rules of files (`read_rules`) by which its parameters lie, once `shard_by` is called."""
    kinds: tuple[str, ...] = ()
    """The `model_type`s of the family."""

    layers: int
    heads: int
    key_heads: int
    head_size: int
    words: int
    most_tokens: int

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = read_config(config)
        kind = Fields(self.config, type(self).__name__).word("model_type", self.kinds, self.kinds[0])
        self.fields = Fields(self.config, kind)
        self._refuse_quantised()
        given = "dtype" if self.fields.has("dtype") else "torch_dtype"
        self.dtype = dtypes[self.fields.word(given, FLOATS, FLOATS[0])]
        self.cuts: Cuts = UNCUT

    def _refuse_quantised(self) -> None:
        """The codes of quantised weights are not numbers that an operator could take for weights."""
        for name in QUANTISED:
            if self.fields.has(name):
                raise self.fields.error(
                    name,
                    None,
                    "says that the weights are quantised, which cannot be predicted; take a checkpoint that is not "
                    "quantised, or let the library that quantised it write the weights as bfloat16",
                )

    def shard_by(self, *, tp: int = 1, dp: int = 1, pp: int = 1) -> "CausalLM":
        """Cut every operator over dp * tp cards, as Megatron does; gives itself.

        The words, the heads and the hidden units are cut over the tp cards of a group (where there
        are more cards than heads, several hold the same ones), the batch over the dp groups. Its
        parameters then lie as the rules of its family say for the mesh dp, tp.

        Parameters
        ----------
        pp
            On how many pipeline stages of dp * tp cards each the layers lie, in runs of about equal
            length; set `pipeline_stages` of the context to the same.

        Raises
        ------
        ShardingError
            If tp cards cannot share the heads, or there are more stages than layers.
        """
        self.cuts = cuts_of(dp, tp, self.heads, self.key_heads)
        if not 1 <= pp <= self.layers:
            raise ShardingError(f"pp={pp}: {self.layers} layers make 1 to {self.layers} pipeline stages")
        for i, block in enumerate(self.blocks()):
            block.pipeline_stage = i * pp // self.layers if pp > 1 else None
        return self

    def blocks(self) -> Sequence[Cell]:
        """The layers, in order; every family says which."""
        raise NotImplementedError

    def hidden(self, ids: Any, step: Step, caches: Sequence[Cache | None]) -> Any:
        """What the layers give for each token, as rows [batch * tokens, size]; every family says how."""
        raise NotImplementedError

    def scores(self, x: Any, cut: Cuts) -> Any:
        """The logits of rows; every family says by which table."""
        raise NotImplementedError

    def step(self, ids: Any, position: Any) -> Step:
        """What the layers share for these tokens."""
        batch, tokens = self._size_of(ids)
        return Step(batch, tokens, position, self.cuts.for_batch(batch))

    def _size_of(self, ids: Any) -> tuple[int, int]:
        if len(ids.shape) != 2 or ids.dtype.kind not in "iu":
            raise GraphError(
                f"{type(self).__name__} takes token numbers of shape [batch, tokens], not {list(ids.shape)} of "
                f"{ids.dtype}"
            )
        batch, tokens = ids.shape
        if not 1 <= tokens <= self.most_tokens or batch < 1:
            raise GraphError(
                f"{type(self).__name__}: {batch} texts of {tokens} tokens; it takes 1 or more, of 1 to "
                f"{self.most_tokens} tokens"
            )
        return batch, tokens

    def construct(self, ids: Any) -> Any:
        """Logits [batch, tokens, words] of token numbers [batch, tokens]."""
        step = self.step(ids, constant(0, "int64"))
        logits = self.scores(self.hidden(ids, step, [None] * self.layers), step.cut)
        shape = (step.batch, step.tokens, self.words)
        return apply(operators.Reshape(shape), logits, strategy=step.cut("rows all"))


class Decoder(Cell):
    """A net that goes on with texts: it keeps the keys and values of earlier tokens as parameters of its own.

    Parameters
    ----------
    net
        The net, whose parameters it reads.
    batch, places
        How many texts, and of how many tokens at most.
    """

    def __init__(self, net: CausalLM, batch: int, places: int) -> None:
        super().__init__()
        net.parameters_dict()
        self.of = (net,)  # not a cell of its own: the net's parameters keep their names
        shape = (batch, net.key_heads, places, net.head_size)
        self.caches = tuple(
            Cache(*(self._cache(f"cache.{layer}.{what}", shape) for what in Cache._fields))
            for layer in range(net.layers)
        )

    def _cache(self, name: str, shape: tuple[int, ...]) -> Parameter:
        param = Parameter(initializer("zeros", shape, np.float32), name, requires_grad=False)
        setattr(self, name, param)
        return param

    def construct(self, ids: Any, position: Any) -> Any:
        """Logits [batch, words] of the last of the new tokens [batch, tokens], the first at `position`."""
        (net,) = self.of
        step = net.step(ids, position)
        x = net.hidden(ids, step, self.caches)
        if step.tokens > 1:
            size = x.shape[1]
            shape = (step.batch, step.tokens, size)
            x = apply(operators.Reshape(shape), x, strategy=step.cut("rows -"))
            x = apply(operators.Part(1, (step.tokens - 1, 1), 1), x, strategy=step.cut("rows - -"))
            x = apply(operators.Reshape((step.batch, size)), x, strategy=step.cut("rows - -"))
        return net.scores(x, step.cut)


class NextTokenLoss(Cell):
    """The mean cross entropy of logits [batch, tokens, words] with labels [batch, tokens].

    A label is the number of the token that comes next. The logits stay cut as the net gives them.
    """

    def __init__(self, net: CausalLM) -> None:
        super().__init__()
        self.of = (net,)

    def construct(self, logits: Any, labels: Any) -> Any:
        """One number."""
        if labels.shape != logits.shape[:2]:
            raise GraphError(
                f"labels of shape {list(labels.shape)} for logits of {list(logits.shape)}; give one number for each "
                "token, that of the token after it"
            )
        batch, tokens, words = logits.shape
        cut = self.of[0].cuts.for_batch(batch)
        logits = apply(operators.Reshape((batch * tokens, words)), logits, strategy=cut("rows - all"))
        labels = apply(operators.Reshape((batch * tokens,)), labels, strategy=cut("rows -"))
        runs = apply(operators.RunsOfClasses(cut.parts), logits, labels, strategy=cut("rows all", "rows"))
        losses = apply(operators.SparseCrossEntropy(), runs, strategy=cut("rows -"))
        return apply(operators.ReduceMean(), losses, strategy=cut("rows"))
