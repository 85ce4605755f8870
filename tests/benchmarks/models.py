"""Strategies of large models, for plans: no weights, only names, shapes and layouts.

dense_70b   80 layers, tensor-parallel and data-parallel with optimizer shards
moe_1t      60 layers of 256 experts each, pipeline x expert x data x tensor parallel: 47,000 tensors and more
"""

from functools import lru_cache

from distinfer_lab.layout import Layout, Mesh, Strategy

__all__ = ["dense_70b", "moe_1t"]


def dense_70b(tp: int, dp: int = 1, *, optimizer_shards: bool = False) -> Strategy:
    """A dense model of 70 billion parameters: 80 layers, 8,192 wide, 64 heads of which 8 are for keys and values."""
    mesh = Mesh(dp=dp, tp=tp)
    shards = dp if optimizer_shards else 1
    row, column = Layout(mesh, "tp -", optimizer_shards=shards), Layout(mesh, "- tp", optimizer_shards=shards)
    whole = Layout(mesh, "-", optimizer_shards=shards)
    kinds = {
        "attention.q": ((8192, 8192), row),
        "attention.k": ((1024, 8192), row),
        "attention.v": ((1024, 8192), row),
        "attention.o": ((8192, 8192), column),
        "mlp.gate": ((28672, 8192), row),
        "mlp.up": ((28672, 8192), row),
        "mlp.down": ((8192, 28672), column),
        "norm.attention": ((8192,), whole),
        "norm.mlp": ((8192,), whole),
    }
    tensors = {f"layers.{i}.{name}": kind for i in range(80) for name, kind in kinds.items()}
    tensors |= {"embedding": ((128256, 8192), row), "head": ((128256, 8192), row), "norm": ((8192,), whole)}
    return Strategy(
        {n: layout for n, (_, layout) in tensors.items()}, {n: s for n, (s, _) in tensors.items()}, tp * dp
    )


def moe_1t(pp: int, ep: int, dp: int, tp: int, *, layers: int = 60, experts: int = 256) -> Strategy:
    """A mixture of experts of a trillion parameters on pp x dp x ep x tp ranks, tp the fastest.

    A stage holds its layers; within a stage an expert lies on the ranks of its group, strided in
    the grid; everything else is replicated over dp and ep. Optimizer shards cut what dp replicates.
    """
    width, inner = 7168, 3072
    stage = dp * ep * tp

    @lru_cache(None)
    def dense(first: int, *dims: tuple[str, ...]) -> Layout:
        mesh = Mesh(dp=dp, ep=ep, tp=tp)
        return Layout(mesh, dims, first_ranks=(first,), optimizer_shards=dp * ep)

    @lru_cache(None)
    def expert(first: int, *dims: tuple[str, ...]) -> Layout:
        return Layout(
            Mesh(dp=dp, tp=tp), dims, first_ranks=(first,), strides=(ep * tp, 1), optimizer_shards=dp
        )

    row, column = (("tp",), ()), ((), ("tp",))
    layouts: dict[str, Layout] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, shape: tuple[int, ...], layout: Layout) -> None:
        layouts[name], shapes[name] = layout, shape

    for layer in range(layers):
        first = layer * pp // layers * stage
        add(f"{layer}.q_a", (1536, width), dense(first, *row))
        add(f"{layer}.q_b", (24576, 1536), dense(first, *row))
        add(f"{layer}.kv_a", (512, width), dense(first, *row))
        add(f"{layer}.kv_b", (32768, 512), dense(first, *row))
        add(f"{layer}.o", (width, 16384), dense(first, *column))
        add(f"{layer}.norm", (width,), dense(first, ()))
        add(f"{layer}.router", (experts, width), dense(first, (), ()))
        for number in range(experts):
            at = first + number * ep // experts * tp
            for part in ("gate", "up"):
                add(f"{layer}.{number}.{part}", (inner, width), expert(at, *row))
            add(f"{layer}.{number}.down", (width, inner), expert(at, *column))
            add(f"{layer}.{number}.scale", (inner,), expert(at, ("tp",)))
    add("embedding", (131072, width), dense(0, *row))
    add("head", (131072, width), dense((pp - 1) * stage, *row))
    return Strategy(layouts, shapes, pp * stage)
