"""Code as users write it: what a type checker infers of it, and which mistakes it finds.

It is never called: `test_user_code` gives it to mypy, and expects that error in each line with `# error: CODE`,
and no other.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import distinfer_lab as dl
from distinfer_lab.net import Value
from distinfer_lab.reshard import Explanation


def right() -> None:
    """Every call has the type that an editor shows."""
    checkpoint = dl.open_checkpoint("ckpt", "train_strategy.ckpt", rebuild=True, without=[3])
    assert_type(checkpoint, dl.Checkpoint)
    layout = dl.Layout(dl.Mesh(dp=2, tp=4), "- tp")
    strategy = dl.Strategy({"w": layout}, {"w": (96, 16)})

    conversion = checkpoint.plan(strategy, select="*.weight", dtype="bfloat16")
    assert_type(conversion, dl.Conversion)
    assert_type(conversion.explain("64 MiB"), Explanation)
    result = conversion.write("out", on=dl.Threads(2), overwrite=True, max_shard_size="5GB")
    assert_type(result, dl.ReshardResult)
    assert_type(dl.write(conversion, "out", format="safetensors"), dl.ReshardResult)
    assert_type(result.read_bytes, int)
    assert_type(dl.plan_reshard(strategy, strategy), dl.ReshardPlan)

    with dl.CardGroup(8, processes=True) as cards:
        assert_type(cards, dl.CardGroup)
        assert_type(conversion.write("out", on=cards, route="channels"), dl.ReshardResult)
        run = cards.start(lambda run: conversion.write("out", on=cards))
        assert_type(run, dl.Run[dl.ReshardResult])
        assert_type(run.result(timeout=60), dl.ReshardResult)

    net = dl.nn.Dense(4, 2)
    model = dl.Model(net)
    assert_type(model.predict(dl.Tensor(np.zeros(4))), dl.Tensor | tuple[dl.Tensor, ...])
    assert_type(model.generate(np.zeros((1, 3), np.int64), max_new_tokens=8), dl.Tensor)
    assert_type(dl.bfloat16, np.dtype)


async def right_waiting(run: dl.Run[dl.ReshardResult], runs: list[dl.Run[object]]) -> None:
    """A run that is awaited has the result of its work; where the result does not matter, any run will do."""
    assert_type(await run, dl.ReshardResult)
    runs.append(run)


class Net(dl.nn.Cell):
    """As a user writes one, with inputs of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = dl.Parameter(dl.initializer("normal", (4, 2)))
        self.matmul = dl.ops.MatMul().shard(((1, 1), (1, 2)))

    def construct(self, x: Value, scale: float) -> Value:
        """Two operators: a primitive, and Python's."""
        return self.matmul(x, self.weight) * scale


def right_nets() -> None:
    """Tensors stay tensors under Python's operators, and primitives and layers keep their kind when sharded."""
    x = dl.Tensor([[1.0, 2.0]])
    assert_type(x * 2 - x / x, dl.Tensor)
    assert_type(1 - x, dl.Tensor)
    net = Net()
    assert_type(net.matmul, dl.ops.MatMul)
    assert_type(dl.nn.ReLU().shard(((1, 1),)), dl.nn.ReLU)
    assert_type(net.weight.asnumpy(), NDArray[Any])
    assert_type(dl.models.from_pretrained_config("folder").shard_by(tp=2).kv_heads, int)
    dl.nn.Adam(net.trainable_params(), learning_rate=[0.1, 0.01])


def wrong_nets(net: Net) -> None:
    """One mistake in each line."""
    net.matmul.shard("2x4")  # error: arg-type
    net.weight + "1"  # error: operator
    dl.nn.Adam(net.trainable_params(), learning_rate="fast")  # error: arg-type
    dl.nn.Embedding(8, 4, embedding_table=object())  # error: arg-type


def wrong(checkpoint: dl.Checkpoint, conversion: dl.Conversion, strategy: dl.Strategy) -> None:
    """One mistake in each line."""
    conversion.write("out", bogus=3)  # error: call-arg
    print(dl.CardGroup(2).start(lambda run: 3).result().paths)  # error: attr-defined
    conversion.write("out", overwrite="yes")  # error: arg-type
    conversion.write("out", on="cards")  # error: arg-type
    checkpoint.plan(strategy, dtyp="bfloat16")  # error: call-arg
    dl.open_checkpoint("ckpt", without=3)  # error: arg-type
    dl.Mesh(dp="2")  # error: arg-type
    dl.Mode()  # error: attr-defined
