"""What a config.json says of the weights beside it, as far as it can be seen: layers, words, head, quantisation.

A loader makes the model by its configuration, and fills what the weights lack with random numbers.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ..errors import Option, Remark

__all__ = ["NamedTensor", "config_names", "config_problems", "has_tied_head", "kind_of_dtype"]

MOST_LAYERS = 10_000
PLAIN_FLOATS = ("float16", "bfloat16", "float32", "float64")
_MODEL = r"(?:model|transformer|model\.language_model|language_model\.model)\."
_EMBEDDING = re.compile(rf"{_MODEL}(?:embed_tokens|wte)\.weight")
HEAD = "lm_head.weight"
_HEAD = re.compile(r"(?:.*\.)?(?:lm_head|embed_out)\.weight")
_PART_OF_HEAD = re.compile(r"(?:.*\.)?(?:lm_head|embed_out)\..*")
"""Also what is there of a quantised head."""
_LAYER = re.compile(rf"({_MODEL}(?:layers|h)\.)(\d{{1,6}})\.")


UNTIED = frozenset(
    {
        *(
            "llama",
            "mistral",
            "mixtral",
            "qwen2",
            "qwen2_moe",
            "qwen3",
            "qwen3_moe",
            "phi3",
            "granite",
            "olmo2",
        ),
        *("glm4", "deepseek_v2", "deepseek_v3", "gpt_oss", "gpt_neox"),
    }
)
TIED = frozenset({"gpt2", "gemma", "gemma2", "gemma3_text", "starcoder2", "cohere", "cohere2", "bloom"})
"""What a configuration of these kinds means that does not say `tie_word_embeddings`: the defaults of transformers."""
_WITH_HEAD = re.compile(r".*(?:ForCausalLM|LMHeadModel|ForConditionalGeneration)")


class NamedTensor(NamedTuple):
    """What a tensor is; its name is the key."""

    shape: tuple[int, ...]
    dtype: str


def kind_of_dtype(dtype: str) -> str:
    """The dtypes of weights are of one kind; any other is its own, as quantised codes are."""
    return "float" if dtype in PLAIN_FLOATS else dtype


def has_tied_head(config: Mapping[str, Any]) -> bool | None:
    """Whether the head is the embedding, and need not be among the weights; None if that is not known."""
    text = _text_config(config)
    stated = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if isinstance(stated, bool):
        return stated
    kinds = {str(fields.get("model_type")) for fields in (config, text)}
    return True if kinds & TIED else False if kinds & UNTIED else None


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def config_problems(
    config: Mapping[str, Any],
    tensors: Mapping[str, NamedTensor],
    allow_missing: Sequence[str] = (),
    are_equal: Callable[[str, str], bool] = lambda one, other: True,
) -> Iterator[str]:
    """What a config.json says that is not true of some weights: a phrase each, which begins with what it says.

    Parameters
    ----------
    config
        Its fields; {} has no problems.
    tensors
        All weights.
    allow_missing
        Patterns of tensors that may be missing.
    are_equal
        Whether two tensors of one shape and dtype hold the same values, as far as that is cheap to see.
    """
    if not config:
        return
    text = _text_config(config)
    rows = text.get("vocab_size")
    for name, tensor in tensors.items():
        if _EMBEDDING.fullmatch(name) and tensor.shape and type(rows) is int and tensor.shape[0] != rows:
            yield f"vocab_size {rows}, but {name} has {tensor.shape[0]} rows"
    yield from _of_layers(tensors, text, allow_missing)
    yield from _of_head(config, tensors, allow_missing, are_equal)
    quantised = [name for name, tensor in tensors.items() if tensor.dtype.startswith("float8")]
    if quantised and "quantization_config" not in config and "quantization_config" not in text:
        yield f"no quantization_config, but {quantised[0]} is quantised"
    codes = any(
        kind_of_dtype(tensor.dtype) != "float" and len(tensor.shape) > 1 for tensor in tensors.values()
    )
    if config.get("quantization_config") and not codes:
        yield "a quantization_config, but no tensor is quantised"


def _of_head(
    config: Mapping[str, Any],
    tensors: Mapping[str, NamedTensor],
    allow_missing: Sequence[str],
    are_equal: Callable[[str, str], bool],
) -> Iterator[str]:
    """A head that is not the embedding though it should be, or that is not there."""
    table = next(filter(_EMBEDDING.fullmatch, tensors), None)
    tied = has_tied_head(config)
    if table is None or tied is None:
        return
    stated = "tie_word_embeddings" in config or "tie_word_embeddings" in _text_config(config)
    said = "" if stated else ", the default of its model_type"
    head = next(filter(_HEAD.fullmatch, tensors), None)
    if tied and head is not None and (tensors[head] != tensors[table] or not are_equal(head, table)):
        without = Option("select", [f"!{head}"])
        yield Remark(
            f"tie_word_embeddings true{said}, so a loader takes {table} for the head, but {head} is another; say "
            f"false there, or leave it out by {without}",
            without,
        )
    known = config.get("architectures")
    with_head = not isinstance(known, list) or any(_WITH_HEAD.fullmatch(str(name)) for name in known)
    lacking = head is None and with_head and not any(map(_PART_OF_HEAD.fullmatch, tensors))
    if not tied and lacking and not _allows(allow_missing, HEAD):
        yield (
            f"tie_word_embeddings false{said}, but there is no {HEAD}, which a loader would fill with random "
            f"numbers; if the head is {table}, say true there"
        )


def _of_layers(
    tensors: Mapping[str, NamedTensor], text: Mapping[str, Any], allow_missing: Sequence[str]
) -> Iterator[str]:
    count = _layers(text)
    found = [match for name in tensors if (match := _LAYER.match(name))]
    if not found or count is None:
        return
    seen = {int(match[2]) for match in found}
    # Layers that predict further tokens are numbered after the others.
    more = text.get("num_nextn_predict_layers")
    most = count + (more if type(more) is int else 0)
    lacking = next((n for n in range(min(count, max(seen) + 2)) if n not in seen), None)
    if lacking is not None and not _allows(allow_missing, f"{found[0][1]}{lacking}.*"):
        yield f"{count} layers, but there is no {found[0][1]}{lacking}"
    if max(seen) >= most:
        yield f"{count} layers, but there is {found[0][1]}{max(seen)}"


def _layers(text: Mapping[str, Any]) -> int | None:
    count = text.get("num_hidden_layers", text.get("n_layer"))
    return count if type(count) is int else None


def config_names(config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """What a config.json speaks of, as `allow_missing` may name it: the head, and each layer by a pattern."""
    prefix = next((match[1] for name in names if (match := _LAYER.match(name))), None)
    count = _layers(_text_config(config)) or 0
    layers = [] if prefix is None else [f"{prefix}{n}.*" for n in range(min(count, MOST_LAYERS))]
    return [*layers, HEAD] if has_tied_head(config) is False else layers


def _allows(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
