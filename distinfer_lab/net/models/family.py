"""Which family a configuration is of."""

from collections.abc import Mapping

from ...errors import GraphError
from .causal import CausalLM
from .fields import Config, read_config
from .gpt2 import GPT2
from .llama import Llama

__all__ = ["FAMILIES", "from_pretrained_config", "model_type_of"]

FAMILIES: Mapping[str, type[CausalLM]] = {
    kind: family for family in (GPT2, Llama) for kind in family.model_types
}
"""`model_type` -> the family."""


def from_pretrained_config(config: Config) -> CausalLM:
    """The net that a Hugging Face `config.json` describes, with random initial values.

    Parameters
    ----------
    config
        The fields, the file, or the folder that holds it. `load_distributed_checkpoint(net, folder)`
        then brings the weights.

    Raises
    ------
    GraphError
        If the model_type is not supported, or a field is missing, out of bounds or not supported.
    """
    return FAMILIES[model_type_of(config)](read_config(config))


def model_type_of(config: Config) -> str:
    """The `model_type` of a configuration.

    Raises
    ------
    GraphError
        If it is not supported, or there is no configuration.
    """
    kind = read_config(config).get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise GraphError(f"model_type={kind!r:.80} is not one of those supported: {', '.join(FAMILIES)}")
    return kind
