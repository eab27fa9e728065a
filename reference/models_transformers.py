"""Writes testdata/models: a tiny random Qwen2 model with inputs and outputs of transformers.

    python -m venv VENV && VENV/bin/pip install torch transformers safetensors
    VENV/bin/python reference/models_transformers.py

Made with transformers 5.23.0 and torch 2.15.0 on a CPU. There is NAME.json, its config.json,
NAME.safetensors, its weights under their published names, and NAME.golden.safetensors with tensors `in.*`, the
arguments of the forward pass, and `out.*`, its results.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models"


def randomised(model):
    """Norms, biases and temperatures away from their trivial initial values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() < 2:
                p.add_(0.1 * noise)
            else:
                p.copy_(0.15 * noise)
    return model.eval()


def write(name, model, inputs, outputs):
    OUT.mkdir(parents=True, exist_ok=True)
    config = model.config.to_json_string(use_diff=False)
    (OUT / f"{name}.json").write_text(config)
    weights = {k: v.contiguous().clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    if getattr(model.config, "tie_word_embeddings", False):
        weights.pop("lm_head.weight", None)
    save_file(weights, OUT / f"{name}.safetensors")
    golden = {f"in.{k}": v.to(torch.float32) for k, v in inputs.items()}
    golden |= {f"out.{k}": v.detach().to(torch.float32).contiguous() for k, v in outputs.items()}
    save_file(golden, OUT / f"{name}.golden.safetensors")
    print(name, sum(v.numel() for v in weights.values()), "parameters")


torch.manual_seed(0)
qwen2 = Qwen2Config(vocab_size=60, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
                    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-6, tie_word_embeddings=True,
                    rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
model = randomised(Qwen2ForCausalLM(qwen2))
ids = torch.randint(0, 60, (2, 11), generator=torch.Generator().manual_seed(3))
with torch.no_grad():
    write("qwen2", model, {"input_ids": ids}, {"logits": model(input_ids=ids).logits})
