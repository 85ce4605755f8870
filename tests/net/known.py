"""Operators of transformers with inputs, and their answers by numpy or scipy alone."""

import numpy as np
import scipy.special

from distinfer_lab.net import operators as ops

RANDOM = np.random.default_rng(6)


def numbers(*shape: int) -> np.ndarray:
    return np.asarray(RANDOM.uniform(0.2, 1.7, shape) * RANDOM.choice([-1.0, 1.0], shape))


def shared(keys: np.ndarray, heads: int) -> np.ndarray:
    """Key heads, each repeated for the query heads that look at it."""
    return np.repeat(keys, heads // keys.shape[1], axis=1)


def weights(query: np.ndarray, key: np.ndarray, scale: float) -> np.ndarray:
    """Softmax of the scores, token by token, each over the tokens up to itself."""
    scores = scale * np.einsum("bhtd,bhsd->bhts", query, shared(key, query.shape[1]))
    out = np.zeros_like(scores)
    for i in range(scores.shape[2]):
        out[:, :, i, : i + 1] = scipy.special.softmax(scores[:, :, i, : i + 1], axis=-1)
    return out


def turned(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The halves of each head as the two parts of complex numbers, times exp(i angle)."""
    half = x.shape[-1] // 2
    found = (x[..., :half] + 1j * x[..., half:]) * (angles[0] + 1j * angles[1])
    return np.concatenate([found.real, found.imag], axis=-1)


def runs(logits: np.ndarray, labels: np.ndarray, parts: int) -> np.ndarray:
    columns = [scipy.special.logsumexp(part, axis=1) for part in np.split(logits, parts, axis=1)]
    return np.stack([*columns, logits[np.arange(len(labels)), labels]], axis=1)


Q, K, V = numbers(2, 4, 3, 6), numbers(2, 2, 3, 6), numbers(2, 2, 3, 4)
P = RANDOM.uniform(0.1, 1, (2, 4, 3, 3))
ANGLES = RANDOM.uniform(0, 3, (4, 3))
TURNS = np.stack([np.cos(ANGLES), np.sin(ANGLES)])
LABELS = RANDOM.integers(0, 8, 4)

KNOWN = {
    "RMSNorm": (
        ops.RMSNorm(1e-5),
        [a := numbers(4, 6), b := numbers(6)],
        b * a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-5),
    ),
    "RootMeanSquare": (
        ops.RootMeanSquare(1e-5),
        [a := numbers(2, 4, 6)],
        a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-5),
    ),
    "SiLU": (ops.SiLU(), [a := numbers(4, 6)], a * scipy.special.expit(a)),
    "ErfGeLU": (ops.ErfGeLU(), [a := numbers(4, 6)], a * scipy.special.ndtr(a)),
    "Rotary": (ops.Rotary(), [a := numbers(2, 2, 4, 6), TURNS], turned(a, TURNS)),
    "Rotary back": (
        ops.Rotary(backwards=True),
        [a := numbers(2, 2, 4, 6), TURNS],
        turned(a, TURNS * np.array([1, -1])[:, None, None]),
    ),
    "AttentionWeights": (ops.AttentionWeights(scale=0.5), [Q, K], weights(Q, K, 0.5)),
    "GroupedMatMul": (ops.GroupedMatMul(), [P, V], np.einsum("bhts,bhsd->bhtd", P, shared(V, 4))),
    "GroupedMatMul tb": (
        ops.GroupedMatMul(transpose_b=True),
        [Q, K],
        np.einsum("bhtd,bhsd->bhts", Q, shared(K, 4)),
    ),
    "PartialLogSumExp": (ops.PartialLogSumExp(2), [a := numbers(4, 8), LABELS], runs(a, LABELS, 2)),
    "SparseCrossEntropy": (
        ops.SparseCrossEntropy(),
        [a := numbers(4, 3)],
        scipy.special.logsumexp(a[:, :-1], axis=1) - a[:, -1],
    ),
}
SELDOM = {
    "GroupedOuter": (
        ops.GroupedOuter(2),
        [P, Q],
        np.einsum("bkgts,bkgtd->bksd", P.reshape(2, 2, 2, 3, 3), Q.reshape(2, 2, 2, 3, 6)),
    ),
    "Positions": (ops.Positions(4), [np.array(3)], np.arange(3, 7)),
    "Angles": (
        ops.Angles(2, (1.0, 0.5), "float64"),
        [np.array(3)],
        [f(np.array([[3, 1.5], [4, 2]], np.float32)) for f in (np.cos, np.sin)],
    ),
}
FUSED = {
    "Part": (ops.Part(1, (6, 2, 4), 2), [a := numbers(4, 12)], a[:, 8:]),
    "Part rows": (ops.Part(0, (2, 4), 0), [a := numbers(6, 5)], a[:2]),
}
"""Their operands cannot be cut in runs: each part is cut by itself."""
