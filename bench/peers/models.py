"""Writes the files that peers read: models.py DIRECTORY. What is there already is kept; needs about 2 GB."""

import ctypes
import sys
from pathlib import Path


def onnx(path, batch):
    import torch
    from networks import Vision

    torch.manual_seed(0)
    model = Vision(768).eval()
    torch.onnx.export(model, (torch.randn(batch, 3, 224, 224),), str(path), input_names=["pixels"],
                      output_names=["vectors"], dynamo=True, opset_version=18, external_data=False)


def gguf_f16(path):
    """A language model of half a billion parameters in Qwen2's shape, as `vlm bench generate --arch qwen2-0.5b`."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(0)
    width, hidden, layers, heads, kv_heads, vocabulary = 1024, 4096, 24, 16, 4, 151936
    kv_width = width // heads * kv_heads
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("none")

    def matrix(name, rows, columns):
        values = rng.standard_normal((rows, columns), dtype=np.float32)
        writer.add_tensor(f"{name}.weight", (0.02 * values).astype(np.float16))

    def vector(name, length, value):
        writer.add_tensor(name, np.full(length, value, np.float32))

    matrix("token_embd", vocabulary, width)
    vector("output_norm.weight", width, 1)
    for layer in range(layers):
        block = f"blk.{layer}"
        vector(f"{block}.attn_norm.weight", width, 1)
        vector(f"{block}.ffn_norm.weight", width, 1)
        for part, rows in (("q", width), ("k", kv_width), ("v", kv_width)):
            matrix(f"{block}.attn_{part}", rows, width)
            vector(f"{block}.attn_{part}.bias", rows, 0)
        matrix(f"{block}.attn_output", width, width)
        matrix(f"{block}.ffn_gate", hidden, width)
        matrix(f"{block}.ffn_up", hidden, width)
        matrix(f"{block}.ffn_down", width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantized(source, path, kind):
    for build in ("llama-noamx", "llama-native"):
        sys.path.insert(0, str(Path(sys.prefix) / build))
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(parameters)):
        raise RuntimeError("llama_model_quantize failed")


def main():
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    f16 = directory / "qwen2-0.5b-f16.gguf"
    wanted = [(directory / f"vit-b-16-batch-{b}.onnx", onnx, (b,)) for b in (1, 16)]
    wanted.append((f16, gguf_f16, ()))
    for kind in ("Q4_K_M", "Q8_0"):
        path = directory / f"qwen2-0.5b-{kind.lower()}.gguf"
        wanted.append((path, lambda path, kind: quantized(f16, path, kind), (kind,)))
    failed = False
    for path, make, arguments in wanted:
        if path.exists():
            continue
        part = path.with_suffix(".part" + path.suffix)
        try:
            make(part, *arguments)
            part.rename(path)
            print(f"models: {path}")
        except Exception as error:  # one missing peer must not keep the others from their files
            failed = True
            part.unlink(missing_ok=True)
            print(f"models: {path}: not written: {error!r}", file=sys.stderr)
    sys.exit(failed)


main()
