"""A tiny random model of every architecture that transformers' ``AutoModelForSequenceClassification`` knows.

Sizes follow from the names of a configuration's fields, so that an architecture which a later release adds is built
without a line here, as a rule.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from helpers.zoo import randomise

ARCHITECTURES = tuple(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)

WIDTH, HEADS, LAYERS, INNER, POSITIONS, VOCABULARY = 24, 2, 2, 34, 40, 61
PER_HEAD = WIDTH // HEADS


def _all(names: str, value: int) -> dict[str, int]:
    return dict.fromkeys(names.split(), value)


_SIZES: dict[str, Any] = {
    **_all("hidden_size d_model n_embd emb_dim dim embedding_dim out_hidden_size d_latents pooler_hidden_size", WIDTH),
    **_all("num_attention_heads num_key_value_heads encoder_attention_heads decoder_attention_heads n_head", HEADS),
    **_all("n_heads num_heads num_self_attention_heads num_cross_attention_heads linear_num_key_heads", HEADS),
    **_all("linear_num_value_heads index_n_heads n_mamba_heads num_query_groups", HEADS),
    **_all("num_hidden_layers encoder_layers decoder_layers n_layer n_layers num_layers num_decoder_layers", LAYERS),
    **_all("depth num_self_attends_per_block", LAYERS),
    **_all("intermediate_size encoder_ffn_dim decoder_ffn_dim d_ff ffn_hidden_size n_inner d_inner dff", INNER),
    **_all("hidden_dim ffn_dim feed_forward_size", INNER),
    **_all("head_dim kv_channels d_head query_pre_attn_scalar attention_head_size", PER_HEAD),
    **_all("max_position_embeddings n_positions original_max_position_embeddings max_seq_len", POSITIONS),
    **_all("num_local_experts n_routed_experts num_experts", 4),
    **_all("moe_intermediate_size shared_expert_intermediate_size prediction_head_size", 14),
    **_all("kv_lora_rank q_lora_rank", 8),
    **_all("v_head_dim qk_nope_head_dim index_head_dim linear_key_head_dim linear_value_head_dim", 6),
    "vocab_size": VOCABULARY,
    "embedding_size": 12,
    "d_kv": 7,
    "qk_rope_head_dim": 4,
    "qk_head_dim": 10,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "index_topk": 8,
    "sliding_window": 16,
    "mamba_d_state": 4,
    "mamba_dt_rank": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "cls_token_id": 1,
    "mask_token_id": 3,
    "pad_token_id": 0,
    "image_size": 8,
    "patch_size": 4,
    "num_position_embeddings": 16,
}  # fmt: skip

# What a field's name does not tell.
_SPECIAL: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "canine": {"num_hash_buckets": 64, "num_hash_functions": 4, "local_transformer_stride": 8},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}}
    },
    "convbert": {"conv_kernel_size": 3, "head_ratio": 2, "num_groups": 1},
    "funnel": {"block_sizes": [1, 1]},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 4, "input_size": 32},
    **{name: {"layer_types": ["linear_attention", "full_attention"]} for name in ("qwen3_5_text", "qwen3_next")},
    "lilt": {"channel_shrink_ratio": 2, "max_2d_position_embeddings": 20},
    "longformer": {"attention_window": 4},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "markuplm": {
        "max_xpath_tag_unit_embeddings": 20,
        "max_xpath_subs_unit_embeddings": 20,
        "tag_pad_id": 16,
        "subs_pad_id": 11,
        "xpath_unit_hidden_size": 4,
        "max_depth": 5,
    },
    "mobilebert": {"true_hidden_size": WIDTH, "intra_bottleneck_size": WIDTH},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4},
    "perceiver": {"num_latents": 6},
    "reformer": {"axial_pos_embds": False, "is_decoder": False},
    "rembert": {"input_embedding_size": 12, "output_embedding_size": 12},
    "roc_bert": {
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
        "pronunciation_vocab_size": VOCABULARY,
        "shape_vocab_size": VOCABULARY,
    },
    "squeezebert": {
        "embedding_size": WIDTH,
        "intermediate_size": 32,
        **{f"{name}_groups": 2 for name in ("q", "k", "v", "intermediate", "output")},
    },
    "stablelm": {"partial_rotary_factor": 0.5},
    "t5": {"decoder_start_token_id": 0},
    "tapas": {"type_vocab_sizes": [3, 8, 8, 2, 8, 8, 2]},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": WIDTH,
    },
    "zamba2": {"mamba_headdim": WIDTH, "layers_block_type": ["mamba", "hybrid"]},
}


def _options(kind: type[PreTrainedConfig]) -> dict[str, Any]:
    """Tiny values for the fields that a configuration class has, those of its parts included."""
    default = kind()
    known = {*default.to_dict(), *getattr(kind, "attribute_map", {})}
    # There the head's width follows from its parts.
    skipped = {"head_dim"} if "qk_rope_head_dim" in known else set()
    options = {name: value for name, value in _SIZES.items() if name in known - skipped}
    for name in kind.sub_configs:
        part = getattr(default, name, None)
        if isinstance(part, PreTrainedConfig):
            options[name] = _options(type(part)) | {"model_type": part.model_type}
    options |= _SPECIAL.get(kind.model_type, {})
    return {name: value for name, value in options.items() if value is not None}


def build(architecture: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Build a classifier of three classes with random weights, in evaluation mode.

    Args:
        architecture: One of `ARCHITECTURES`.
        dtype: Type of the weights.

    Returns:
        The model.
    """
    kind = CONFIG_MAPPING[architecture]
    config = kind(num_labels=3, **_options(kind))
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForSequenceClassification.from_config(config).parameters())
    assert size < 10**6, f"{architecture} would have {size} parameters; name its sizes"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
    randomise(model, 0)
    return model.to(dtype).eval()
