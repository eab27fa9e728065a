"""Writes testdata/models/qwen2-q4_k_m.gguf, a tiny random model, and its logits by llama.cpp beside it.

    python -m venv VENV && VENV/bin/pip install numpy gguf safetensors llama-cpp-python
    VENV/bin/python reference/gguf_llama_cpp.py

Made with llama-cpp-python 0.3.36 on a CPU with AVX-512. The weights are those of the quantized file, mixed of Q4_K and
Q6_K; llama.cpp rounds activations to 8 bits, so its logits are near those of the exact product, not equal to them.
"""

import ctypes
import tempfile
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models"
WIDTH, HIDDEN, HEADS, KV_HEADS, VOCABULARY, LAYERS = 256, 256, 4, 2, 64, 1
TOKENS = [5, 60, 33, 2, 17, 17, 41, 0, 63, 9, 28, 50]


def write_f16(path):
    rng = np.random.default_rng(0)
    kv_width = WIDTH // HEADS * KV_HEADS
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("none")

    def matrix(name, rows, columns):
        values = 0.08 * rng.standard_normal((rows, columns), dtype=np.float32)
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def vector(name, length, mean):
        writer.add_tensor(name, (mean + 0.1 * rng.standard_normal(length)).astype(np.float32))

    matrix("token_embd", VOCABULARY, WIDTH)
    vector("output_norm.weight", WIDTH, 1)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        vector(f"{block}.attn_norm.weight", WIDTH, 1)
        vector(f"{block}.ffn_norm.weight", WIDTH, 1)
        for part, rows in (("q", WIDTH), ("k", kv_width), ("v", kv_width)):
            matrix(f"{block}.attn_{part}", rows, WIDTH)
            vector(f"{block}.attn_{part}.bias", rows, 0)
        matrix(f"{block}.attn_output", WIDTH, WIDTH)
        matrix(f"{block}.ffn_gate", HIDDEN, WIDTH)
        matrix(f"{block}.ffn_up", HIDDEN, WIDTH)
        matrix(f"{block}.ffn_down", WIDTH, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(path):
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    settings = llama.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 64, 1, 1
    context = llama.llama_init_from_model(model, settings)
    rows = []
    for token in TOKENS:  # one by one: the logits of every position
        batch = llama.llama_batch_get_one((llama.llama_token * 1)(token), 1)
        assert llama.llama_decode(context, batch) == 0
        found = llama.llama_get_logits_ith(context, 0)
        rows.append(np.ctypeslib.as_array(found, (VOCABULARY,)).copy())
    return np.stack(rows)


llama.llama_backend_init()
target = OUT / "qwen2-q4_k_m.gguf"
with tempfile.TemporaryDirectory() as directory:
    f16 = Path(directory) / "f16.gguf"
    write_f16(f16)
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = llama.LLAMA_FTYPE_MOSTLY_Q4_K_M
    assert llama.llama_model_quantize(str(f16).encode(), str(target).encode(), ctypes.byref(parameters)) == 0
found = logits(target)
save_file({"in.input_ids": np.array([TOKENS], np.float32), "out.logits": found[None]},
          OUT / "qwen2-q4_k_m.golden.safetensors")
print(target.stat().st_size, "bytes; logits of deviation", found.std())
