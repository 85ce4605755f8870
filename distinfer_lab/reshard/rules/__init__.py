"""Destinations by rules: `Rules(mesh_of("tp=4"), read_rules("llama"), config)`."""

from .families import MODEL_TYPES, RULES
from .rule import Rule, rules_json
from .rules import Rules, mesh_of, read_rules

__all__ = ["MODEL_TYPES", "RULES", "Rule", "Rules", "mesh_of", "read_rules", "rules_json"]
