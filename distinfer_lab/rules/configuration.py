"""What a model's configuration says about one tensor: its part of the model, its layer.

::

    vision_tower.encoder.layers.3.q_proj.weight    the fields of vision_config
    language_model.model.layers.3.q_proj.weight    the fields of text_config
    model.layers.3.q_proj.weight                   text_config if there is one, then the fields at the top

A field may differ by layer: as a list with an entry for each, or by the kind of the layer (`layer_types`) as
`num_global_key_value_heads`, `swa_head_dim` and the like.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..text import shown
from .expressions import LARGEST

__all__ = ["Part", "layer_of", "model_types", "part_of"]

WORDS: Mapping[str, frozenset[str]] = {
    "vision": frozenset({"vision", "visual", "image", "vit", "vpm"}),
    "audio": frozenset({"audio", "speech", "whisper", "apm"}),
    "text": frozenset({"text", "language", "llm"}),
}
"""Beginning of a section's name (vision_config) -> words in the names of its tensors."""

KINDS: Mapping[str, frozenset[str]] = {
    "full_attention": frozenset({"global", "full"}),
    "sliding_attention": frozenset({"swa", "sliding", "local"}),
    "chunked_attention": frozenset({"chunked"}),
}
"""Kind of a layer -> words in the names of fields for layers of that kind."""

LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d{1,9})\.")
DEEPEST = 4


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor's name says.

    Examples
    --------
    >>> layer_of("model.layers.12.mlp.experts.3.w1.weight"), layer_of("lm_head.weight")
    (12, None)
    """
    match = LAYER.search(name)
    return None if match is None else int(match[1])


def name_in_any_layer(name: str) -> str:
    """A tensor's name with a star for the number of its layer: equal for the same tensor of every layer.

    Examples
    --------
    >>> name_in_any_layer("moments.model.layers.12.mlp.experts.3.w1.weight"), name_in_any_layer("lm_head.weight")
    ('moments.model.layers.*.mlp.experts.3.w1.weight', 'lm_head.weight')
    """
    match = LAYER.search(name)
    return name if match is None else f"{name[: match.start(1)]}*{name[match.end(1) :]}"


@dataclass(frozen=True)
class Part:
    """What the configuration says about the tensors of one part and layer of a model.

    Parameters
    ----------
    fields
        Field -> value.
    section
        The section that they are from, as "text_config"; "" for those at the top.
    layer
        The number of the layer, None outside of layers.
    is_main
        Whether the part is the language model, or the only one.
    """

    fields: Mapping[str, Any]
    section: str
    layer: int | None
    is_main: bool

    def lookup(self, field: str) -> int | None:
        """The value of a field for this layer; None if it is absent or null.

        Raises
        ------
        ValueError
            If it is not a whole number above 0; or other fields give another value for some layers, and nothing
            says for which.
        """
        variants = {name: words for name in self.fields if (words := _added_words(name, field)) is not None}
        listed = next((name for name, words in variants.items() if words == {"per", "layer"}), None)
        if listed is not None and _entry(self.fields[listed], self.layer) is not None:
            return _whole(_entry(self.fields[listed], self.layer))
        other = self._by_kind(field, variants)
        given = self.fields.get(field) if other is None else other
        if given is None or (isinstance(given, list) and self.layer is None):
            return None
        value = _whole(_entry(given, self.layer) if isinstance(given, list) else given)
        if value is None:
            layer = f" for layer {self.layer}" if isinstance(given, list) else ""
            raise ValueError(
                f"the configuration has {field}={shown(given)}, which gives no whole number above 0{layer}; correct "
                "the config.json, or put a rule in front with units and unit_size as numbers"
            )
        return value

    def _by_kind(self, field: str, variants: Mapping[str, frozenset[str]]) -> Any:
        """The value of a field that is for layers of this layer's kind alone."""
        kinds = {
            name: kind
            for name, words in variants.items()
            for kind, known in KINDS.items()
            if words <= known and _whole(self.fields[name]) is not None
        }
        if not kinds or self.layer is None:
            return None
        kind = _kind(self.fields, self.layer)
        if kind is None and any(self.fields[name] != self.fields.get(field) for name in kinds):
            name = next(iter(kinds))
            raise ValueError(
                f"the configuration has {field}={self.fields.get(field)} and {name}={self.fields[name]}, but no "
                f"layer_types that say which is for layer {self.layer}; add a rule for its tensors with units and "
                "unit_size as numbers"
            )
        return next((self.fields[name] for name, its in kinds.items() if its == kind), None)


def _added_words(name: str, field: str) -> frozenset[str] | None:
    """The words that a field's name has more than another one's: num_global_heads, num_heads -> global."""
    if name == field or len(name) <= len(field):
        return None
    words, base = name.split("_"), field.split("_")
    rest = iter(words)
    return frozenset(words) - frozenset(base) if all(word in rest for word in base) else None


def _kind(fields: Mapping[str, Any], layer: int) -> str | None:
    kind = _entry(fields.get("layer_types"), layer)
    if isinstance(kind, str):
        return kind
    sliding = _entry(fields.get("hybrid_layer_pattern"), layer)  # MiMo: 1 for sliding layers
    return None if sliding not in (0, 1) else ("full_attention", "sliding_attention")[sliding]


def _entry(value: Any, layer: int | None) -> Any:
    return value[layer] if isinstance(value, list) and layer is not None and layer < len(value) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 1 <= value <= LARGEST else None


def part_of(name: str, config: Mapping[str, Any]) -> Part:
    """The part of the configuration that a tensor belongs to, by the parts of its name.

    Examples
    --------
    >>> config = {"text_config": {"head_dim": 64}, "vision_config": {"head_dim": 72}}
    >>> [part_of(f"{name}.layers.0.q_proj.weight", config).section for name in ("model", "vision_tower")]
    ['text_config', 'vision_config']
    """
    words = [frozenset(part.split("_")) | {part} for part in name.split(".")]
    fields, section, is_main = config, "", True
    for _ in range(DEEPEST):
        sections = dict(_sections(fields))
        chosen = next((s for s in sections if s != "text" and _names_section(words, s)), None)
        other = next(
            (s for s in WORDS if s != "text" and s not in sections and _names_section(words, s)), None
        )
        if chosen is not None:
            is_main = is_main and chosen not in WORDS
            fields, section = sections[chosen], _joined(section, chosen)
        elif other is not None and not section.endswith(f"{other}_config"):
            # Fields of the language model would be wrong for another tower.
            return Part({}, _joined(section, other), layer_of(name), False)
        elif "text" in sections:
            fields, section = {**_plain(fields), **sections["text"]}, _joined(section, "text")
        else:
            break
    return Part(fields, section, layer_of(name), is_main)


def _joined(section: str, stem: str) -> str:
    return f"{section}.{stem}_config".removeprefix(".")


def _sections(fields: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The configurations of parts that are models of their own, by the beginning of their field's name."""
    for name, value in fields.items():
        stem = name.removesuffix("_config")
        stem = "text" if stem in ("llm", "language") else stem
        if name != stem and isinstance(value, Mapping) and (stem in WORDS or _is_model(value)):
            yield stem, value


def _is_model(fields: Mapping[str, Any]) -> bool:
    return any(name in fields for name in ("model_type", "hidden_size", "n_embd", "text_config"))


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are no sections."""
    return {name: value for name, value in fields.items() if not isinstance(value, Mapping)}


def _names_section(words: list[frozenset[str]], section: str) -> bool:
    known = WORDS.get(section, frozenset({section}))
    return any(part & known for part in words)


def model_types(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The `model_type` of the configuration and that of its text_config, as far as they are texts."""
    found = [config.get("model_type")]
    found += [section.get("model_type") for stem, section in _sections(config) if stem == "text"]
    return tuple(kind for kind in found if isinstance(kind, str))
