"""The rules that come with the package, by kind of model, and each `model_type` that they were written for.

Linear layers store [out, in], except in GPT-2 (Conv1D, [in, out]) and the stacked experts of gpt-oss. A
tensor is named as transformers saves it. What a family adds comes first, for the first rule that fits is taken.

References
----------
Megatron-LM's tensor parallelism: https://arxiv.org/abs/1909.08053; names and shapes: save_pretrained of
https://github.com/huggingface/transformers.
"""

from collections.abc import Iterable, Mapping

from .rule import Rule

__all__ = ["MODEL_TYPES", "RULES"]

ROWS, COLUMNS, VECTOR = "tp -", "- tp", "tp"

HEADS = "num_attention_heads"
KV_HEADS = "num_key_value_heads or num_attention_heads"
HEAD_SIZE = "head_dim or hidden_size // num_attention_heads"
QUERY_SIZE = f"qk_nope_head_dim + qk_rope_head_dim or {HEAD_SIZE}"
VALUE_SIZE = f"v_head_dim or {HEAD_SIZE}"
QKV = (
    f"({HEADS}) * ({HEAD_SIZE})",
    f"({KV_HEADS}) * ({HEAD_SIZE})",
    f"({KV_HEADS}) * ({HEAD_SIZE})",
)
EXPERT = "moe_intermediate_size or intermediate_size"


def whole(*names: str) -> tuple[Rule, ...]:
    """Tensors that every rank holds whole."""
    return tuple(Rule(f"*.{name}", None) for name in names)


def norms(names: Iterable[str], stage: str | None = None) -> tuple[Rule, ...]:
    """Weight and bias of norms, which every rank holds whole."""
    return tuple(Rule(f"*.{name}.{part}", None, stage=stage) for name in names for part in ("weight", "bias"))


def linear(name: str, units: str | None = None, unit_size: str | int | None = None) -> tuple[Rule, Rule]:
    """Weight [out, in] and bias of a layer whose outputs are cut."""
    return (
        Rule(f"*.{name}.weight", ROWS, units=units, unit_size=unit_size),
        Rule(f"*.{name}.bias", VECTOR, units=units, unit_size=unit_size),
    )


def summed(name: str, units: str | None = None, unit_size: str | int | None = None) -> tuple[Rule, Rule]:
    """Weight [out, in] and bias of a layer whose inputs are cut; ranks add up their outputs, then the bias."""
    return Rule(f"*.{name}.weight", COLUMNS, units=units, unit_size=unit_size), Rule(f"*.{name}.bias", None)


def table(embedding: str, head: str) -> tuple[Rule, ...]:
    """Embedding and head: runs of the vocabulary, the last one shorter where it must be."""
    return (
        Rule(f"*.{embedding}.weight", ROWS, split="torch_chunk", stage="embedding"),
        Rule(f"*.{head}.weight", ROWS, split="torch_chunk", stage="head"),
        Rule(f"*.{head}.bias", VECTOR, split="torch_chunk", stage="head"),
    )


GPT2 = (
    *table("wte", "lm_head"),
    Rule(
        "*.attn.c_attn.weight",
        COLUMNS,
        fused=(None, ("n_embd",) * 3),
        units="n_head",
        unit_size="n_embd // n_head",
    ),
    Rule(
        "*.attn.c_attn.bias", VECTOR, fused=(("n_embd",) * 3,), units="n_head", unit_size="n_embd // n_head"
    ),
    Rule("*.attn.c_proj.weight", ROWS, units="n_head", unit_size="n_embd // n_head"),
    Rule("*.mlp.c_fc.weight", COLUMNS),
    Rule("*.mlp.c_fc.bias", VECTOR),
    Rule("*.mlp.c_proj.weight", ROWS),
    Rule("*.wpe.weight", None, stage="first"),
    *whole("attn.c_proj.bias", "mlp.c_proj.bias", "attn.bias", "attn.masked_bias"),
    *norms(("ln_1", "ln_2")),
    *norms(("ln_f",), stage="last"),
)

LLAMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "post_self_attn_layernorm",
    "post_mlp_layernorm",
    "q_norm",
    "k_norm",
    "q_a_layernorm",
    "kv_a_layernorm",
    "layer_norm1",
    "layer_norm2",
    "pre_layrnorm",  # as CLIP spells it
    "post_layernorm",
)

LLAMA = (
    *table("embed_tokens", "lm_head"),
    # Phi-3: query, key and value in one, gate and up in one.
    Rule("*.qkv_proj.weight", ROWS, fused=(QKV, None), units=KV_HEADS, unit_size=HEAD_SIZE),
    Rule("*.qkv_proj.bias", VECTOR, fused=(QKV,), units=KV_HEADS, unit_size=HEAD_SIZE),
    Rule("*.gate_up_proj.weight", ROWS, fused=(2, None)),
    Rule("*.gate_up_proj.bias", VECTOR, fused=(2,)),
    # DeepSeek's latent attention: the latent parts are whole, what is made of them is cut by heads.
    *whole("q_a_proj.weight", "q_a_proj.bias", "kv_a_proj_with_mqa.weight", "kv_a_proj_with_mqa.bias"),
    *linear("q_b_proj", HEADS, "qk_nope_head_dim + qk_rope_head_dim"),
    *linear("kv_b_proj", HEADS, "qk_nope_head_dim + v_head_dim"),
    *linear("q_proj", HEADS, QUERY_SIZE),
    *linear("k_proj", KV_HEADS, HEAD_SIZE),
    *linear("v_proj", KV_HEADS, VALUE_SIZE),
    *summed("o_proj", HEADS, VALUE_SIZE),
    *linear("gate_proj"),
    *linear("up_proj"),
    *summed("down_proj"),
    # Experts one by one (Mixtral's names), and stacked: [experts, out, in].
    Rule("*.experts.*.w1.weight", ROWS),
    Rule("*.experts.*.w3.weight", ROWS),
    Rule("*.experts.*.w2.weight", COLUMNS),
    Rule("*.experts.gate_up_proj", "- tp -", fused=(None, (EXPERT, EXPERT), None)),
    Rule("*.experts.down_proj", "- - tp", units=EXPERT, unit_size=1),
    *whole("block_sparse_moe.gate.weight", "mlp.gate.weight", "mlp.gate.e_score_correction_bias"),
    *whole("mlp.shared_expert_gate.weight", "mlp.router.weight", "mlp.router.bias"),
    *norms(LLAMA_NORMS),
    *norms(("norm",), stage="last"),
    # Scales of a cache in 8 bits, and a table that old versions saved.
    *whole("k_scale", "v_scale", "rotary_emb.inv_freq"),
    # The vision tower of a model of several inputs.
    *summed("self_attn.out_proj", HEADS, HEAD_SIZE),
    *linear("mlp.fc1"),
    *summed("mlp.fc2"),
    *whole("embeddings.patch_embedding.weight", "embeddings.patch_embedding.bias"),
    *whole("embeddings.position_embedding.weight", "embeddings.class_embedding"),
    *whole("multi_modal_projector.*"),
)

COHERE = (  # norms of queries and keys have a row for each head
    Rule("*.q_norm.weight", ROWS, units=HEADS, unit_size=1),
    Rule("*.k_norm.weight", ROWS, units=KV_HEADS, unit_size=1),
    *LLAMA,
)

STARCODER2 = (*linear("mlp.c_fc"), *summed("mlp.c_proj"), *LLAMA)

GPT_OSS = (  # experts [experts, in, out], of gate and up each other element
    Rule("*.experts.gate_up_proj", "- - tp", units="intermediate_size", unit_size=2),
    Rule("*.experts.gate_up_proj_bias", COLUMNS, units="intermediate_size", unit_size=2),
    Rule("*.experts.down_proj", "- tp -", units="intermediate_size", unit_size=1),
    *whole("experts.down_proj_bias"),
    Rule("*.self_attn.sinks", VECTOR, units=HEADS, unit_size=1),
    *LLAMA,
)

GPT_NEOX = (
    *table("embed_in", "embed_out"),
    *linear("attention.query_key_value", HEADS, f"3 * (hidden_size // {HEADS})"),  # [q, k, v] of each head
    *summed("attention.dense", HEADS, f"hidden_size // {HEADS}"),
    *linear("mlp.dense_h_to_4h"),
    *summed("mlp.dense_4h_to_h"),
    *norms(("input_layernorm", "post_attention_layernorm")),
    *norms(("final_layer_norm",), stage="last"),
    *whole("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"),
)

BLOOM_HEADS = "n_head or num_attention_heads"
BLOOM_SIZE = f"(hidden_size or n_embed) // ({BLOOM_HEADS})"
BLOOM = (
    *table("word_embeddings", "lm_head"),
    *linear("self_attention.query_key_value", BLOOM_HEADS, f"3 * ({BLOOM_SIZE})"),
    *summed("self_attention.dense", BLOOM_HEADS, BLOOM_SIZE),
    *linear("mlp.dense_h_to_4h"),
    *summed("mlp.dense_4h_to_h"),
    *norms(("word_embeddings_layernorm",), stage="first"),
    *norms(("input_layernorm", "post_attention_layernorm")),
    *norms(("ln_f",), stage="last"),
)

RULES: Mapping[str, tuple[Rule, ...]] = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "cohere": COHERE,
    "starcoder2": STARCODER2,
    "gpt_oss": GPT_OSS,
    "gpt_neox": GPT_NEOX,
    "bloom": BLOOM,
}
"""The tables that are known by name."""

MODEL_TYPES: Mapping[str, tuple[str, ...]] = {
    "gpt2": ("gpt2",),
    "llama": (
        *(
            "llama",
            "mistral",
            "mixtral",
            "phi3",
            "qwen2",
            "qwen2_moe",
            "qwen3",
            "qwen3_moe",
            "gemma",
            "gemma2",
        ),
        *("gemma3", "gemma3_text", "granite", "olmo2", "glm4", "glm4_moe", "smollm3", "cohere2"),
        *("deepseek_v2", "deepseek_v3", "llava", "siglip_vision_model", "clip_vision_model"),
    ),
    "cohere": ("cohere",),
    "starcoder2": ("starcoder2",),
    "gpt_oss": ("gpt_oss",),
    "gpt_neox": ("gpt_neox",),
    "bloom": ("bloom",),
}
"""The `model_type`s whose checkpoints a table is for."""
