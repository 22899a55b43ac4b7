import jax
import pytest
import torch

from parity.porting import port

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
TOKENS = torch.randint(2, 99, (2, 7), generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

CASES = {
    "BertForSequenceClassification": ("BertConfig", SMALL, {"input_ids": TOKENS}),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        {"input_ids": TOKENS},
    ),
    "LlamaForCausalLM": ("LlamaConfig", SMALL | {"num_key_value_heads": 2}, {"input_ids": TOKENS}),
    "T5ForConditionalGeneration": (
        "T5Config",
        {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4},
        {"input_ids": TOKENS, "decoder_input_ids": TOKENS[:, :5]},
    ),
    "ViTForImageClassification": ("ViTConfig", SMALL | {"image_size": 32, "patch_size": 8}, {"pixel_values": IMAGES}),
    "ConvNextForImageClassification": (
        "ConvNextConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 32},
        {"pixel_values": IMAGES},
    ),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
        {"pixel_values": IMAGES},
    ),
    "WhisperForConditionalGeneration": (
        "WhisperConfig",
        {
            "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 37, "decoder_ffn_dim": 37, "num_mel_bins": 8,
            "max_source_positions": 20, "max_target_positions": 20, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 1, "decoder_start_token_id": 1,
        },
        {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": TOKENS[:, :5]},
    ),
    "MixtralForCausalLM": (
        "MixtralConfig",
        SMALL | {"num_key_value_heads": 2, "num_local_experts": 4},
        {"input_ids": TOKENS},
    ),
    "MambaForCausalLM": (
        "MambaConfig",
        {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        {"input_ids": TOKENS},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(CASES))
def test_a_family_of_transformers_is_ported_and_proven(name):
    config, options, inputs = CASES[name]
    torch.manual_seed(0)
    settings = getattr(transformers, config)(**options)
    settings.use_cache = False
    with jax.numpy_dtype_promotion("standard"):
        assert not port(getattr(transformers, name)(settings).eval(), (), inputs).notes
