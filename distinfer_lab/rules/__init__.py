"""Destinations by rules: which mesh axes shard which dims of a model's tensors, by name.

Only layouts, names and shapes are known here: `Rules(mesh_of("tp=4"), read_rules("llama"), config)`.
"""

from .configuration import layer_of, name_in_any_layer
from .families import MODEL_TYPES, RULES
from .patterns import name_fits
from .quantised import QuantisedWeight, is_quantised_config, quantised_weights
from .rule import Rule, rules_json
from .rules import Rules, read_rules
from .scales import check_together

__all__ = [
    "MODEL_TYPES",
    "RULES",
    "QuantisedWeight",
    "Rule",
    "Rules",
    "check_together",
    "is_quantised_config",
    "layer_of",
    "name_fits",
    "name_in_any_layer",
    "quantised_weights",
    "read_rules",
    "rules_json",
]
