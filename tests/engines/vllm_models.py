"""Models for tests with the real vLLM, made once into a folder: tiny random ones, and SmolLM2 from its GGUF file. Runs in vLLM's environment."""

import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM

VOCABULARY = 512


def make_tiny(folder):
    """Two layers, random weights; no tokenizer: prompts are token numbers."""
    torch.manual_seed(11)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=64, max_position_embeddings=8192, tie_word_embeddings=False,
                         initializer_range=0.1, bos_token_id=1, eos_token_id=None)
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)


def make_alibi(folder):
    """As tiny, with the one kind of positions that the plugin leaves to vLLM."""
    torch.manual_seed(12)
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=256, n_layer=2, n_head=4, initializer_range=0.1, bos_token_id=1, eos_token_id=None)
    BloomForCausalLM(config).to(torch.float32).save_pretrained(folder)


def make_smollm2(folder, gguf):
    """The weights of a GGUF file in a fresh model of the same shape, so that nothing of the file's format stays."""
    gguf = pathlib.Path(gguf)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, torch_dtype=torch.float32)
    config = LlamaConfig(**{key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"})
    config.architectures = ["LlamaForCausalLM"]
    fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":
    KIND, TARGET = sys.argv[1:3]
    PARTIAL = pathlib.Path(TARGET + ".partial")
    {"tiny": lambda: make_tiny(PARTIAL), "alibi": lambda: make_alibi(PARTIAL), "smollm2": lambda: make_smollm2(PARTIAL, sys.argv[3])}[KIND]()
    PARTIAL.rename(TARGET)
