"""Writes testdata/models/clip, siglip and siglip2: tiny random dual encoders with what their own code makes of inputs.

    python -m venv VENV && VENV/bin/pip install torch transformers open_clip_torch timm safetensors
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_clip.py
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_clip.py full DIRECTORY   (real sizes, outside the repository)

Made with transformers 5.23.0, open_clip_torch 3.3.0 and torch 2.15.0 on a CPU. One folder per case:

- `config.json` or `open_clip_config.json`, as the original writes it; none for OpenAI's layout, which has none;
- `model.safetensors`, the weights as the original writes them, or `weights.json`, their names and shapes, where they are
  many: then each value is a function of its name and place (`fill`), which the test computes too;
- `golden.safetensors`: `in.*`, `out.*`; `shape.NAME` stands for a large input, which is four times `fill`; where the model was trained, `grad.NAME`, the length of a parameter's gradient
  and its product with a pattern (`fill` again), `losses`, of ten steps of AdamW, and `stat.NAME`, the product of a
  running statistic after the first step with a pattern.
"""

import json
import shutil
import sys
from pathlib import Path

import open_clip
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip.model import (
    CLIP,
    CustomTextCLIP,
    build_model_from_openai_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Siglip2Config,
    Siglip2Model,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from known_weights import around, fill, train

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models"


def filled(model):
    """The model with known weights; temperature and bias of the logits stay."""
    with torch.no_grad():
        for name, p in model.state_dict().items():
            if p.is_floating_point() and not name.startswith("logit_"):
                p.copy_(fill(name, p.shape) + around(name, p.shape))
            elif name.startswith("logit_"):
                p.fill_(1.5 if name == "logit_scale" else -0.75)
    return model.eval()


def flat(output, prefix=""):
    """A reference's output by name."""
    found = {}
    for key, value in output.items():
        if isinstance(value, torch.Tensor):
            found[prefix + key] = value
        elif isinstance(value, tuple):
            found |= {f"{prefix}{key}.{i}": v for i, v in enumerate(value) if isinstance(v, torch.Tensor)}
        elif hasattr(value, "items"):
            found |= flat(value, f"{prefix}{key}.")
    return found


def begin(case):
    folder = OUT / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def finish(folder, inputs, outputs, golden, note):
    for name, value in inputs.items():
        value = torch.as_tensor(value)
        if value.numel() > 10000:
            golden["shape." + name] = torch.tensor(value.shape)
        else:
            golden["in." + name] = value
    golden |= {f"out.{k}": v.detach() for k, v in outputs.items()}
    golden = {k: (v.float() if v.is_floating_point() else v.long()).contiguous().clone() for k, v in golden.items()}
    save_file(golden, folder / "golden.safetensors", metadata={"golden": json.dumps(note)})
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(folder.relative_to(OUT), f"{size / 1024:.0f} KiB")


def listed(folder, state):
    shapes = {k: list(v.shape) for k, v in state.items() if v.is_floating_point()}
    (folder / "weights.json").write_text(json.dumps(shapes, indent=0) + "\n")


def hugging_face(case, model, inputs, stored=False, trained=False, edit=None, hidden=False):
    folder = begin(case)
    model = filled(model)
    if stored:
        model.save_pretrained(folder)
        if edit:
            edit(folder)
    else:
        model.config.architectures = [type(model).__name__]
        (folder / "config.json").write_text(model.config.to_json_string(use_diff=False))
        listed(folder, model.state_dict())
    golden = {}
    arguments = {k: torch.as_tensor(v) if not isinstance(v, bool) else v for k, v in inputs.items()}
    with torch.no_grad():
        outputs = flat(model(**arguments, output_hidden_states=hidden))
        if trained:
            texts = {k: v for k, v in arguments.items() if k in ("input_ids", "attention_mask")}
            images = {k: v for k, v in arguments.items() if k not in texts and k != "return_loss"}
            outputs["image_features"] = model.get_image_features(**images).pooler_output
            outputs["text_features"] = model.get_text_features(**texts).pooler_output
    if trained:
        train(model, lambda: model(**arguments).loss, golden)
    finish(folder, inputs, outputs, golden, {"class": type(model).__name__})


def original(case, model, state, inputs, cfg=None, loss=None, batch_statistics=False):
    """OpenAI's layout, or with a config open_clip's."""
    folder = begin(case)
    if cfg:
        text = json.dumps({"model_cfg": cfg, "preprocess_cfg": {}}, indent=1)
        (folder / "open_clip_config.json").write_text(text + "\n")
    listed(folder, state)
    model.output_dict = True
    arguments = {k: torch.as_tensor(v) for k, v in inputs.items()}
    with torch.no_grad():
        outputs = model.eval()(**arguments)
        images, texts = model.get_logits(**arguments)
    outputs = {k: v.detach().clone() for k, v in outputs.items()}
    outputs |= {"logits_per_image": images, "logits_per_text": texts}
    golden = {}
    if loss:
        model.train(batch_statistics)
        train(model, lambda: loss(**model(**arguments)), golden)
    finish(folder, inputs, outputs, golden, {"class": f"open_clip {type(model).__name__}"})


def pixels(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def clip():
    vision = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=16,
                  patch_size=8, hidden_act="gelu", layer_norm_eps=1e-3)
    text = dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, vocab_size=50,
                max_position_embeddings=9, bos_token_id=48, pad_token_id=1)

    def old(folder):
        """A config and weights as the first versions wrote them."""
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["text_config_dict"] = {k: v for k, v in config["text_config"].items() if k != "model_type"}
        config["text_config"] |= {"hidden_size": 512, "num_hidden_layers": 12}
        config["vision_config_dict"] = None
        config["vision_config"] |= {"num_beams": 1, "top_k": 50, "torch_dtype": None, "id2label": {"0": "LABEL_0"}}
        path.write_text(json.dumps(config, indent=1) + "\n")
        weights = load_file(folder / "model.safetensors")
        weights["text_model.embeddings.position_ids"] = torch.arange(9)[None]
        weights["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    ids = [[48, 3, 17, 4, 8, 30, 2, 6, 49], [48, 5, 9, 21, 49, 1, 1, 1, 1], [48, 7, 49, 49, 49, 1, 1, 1, 1]]
    mask = [[1] * 9, [1] * 5 + [0] * 4, [1] * 3 + [0] * 6]
    whole = CLIPConfig(vision_config=vision, text_config=text | dict(eos_token_id=2), projection_dim=12)
    hugging_face("clip/largest_id", CLIPModel(whole),
                 dict(pixel_values=pixels(3, 3, 16, 16), input_ids=ids, attention_mask=mask, return_loss=True),
                 stored=True, trained=True, edit=old, hidden=True)
    # an end-of-text token that is not the largest id, padding in front, other activations, positions interpolated
    vision |= dict(image_size=20, hidden_act="gelu_new")
    text |= dict(hidden_act="silu", eos_token_id=45)
    ids = [[48, 3, 45, 49, 45, 30], [0, 0, 48, 9, 45, 1], [48, 3, 17, 1, 2, 3]]
    mask = [[1] * 6, [0, 0, 1, 1, 1, 0], [1] * 6]
    whole = CLIPConfig(vision_config=vision, text_config=text, projection_dim=12)
    hugging_face("clip/first_end", CLIPModel(whole),
                 dict(pixel_values=pixels(2, 3, 27, 16), input_ids=ids, attention_mask=mask,
                      interpolate_pos_encoding=True))
    vision = CLIPVisionConfig(**vision, projection_dim=8)
    text = CLIPTextConfig(**text, projection_dim=8)
    images, texts = dict(pixel_values=pixels(2, 3, 20, 20)), dict(input_ids=ids, position_ids=[[3, 2, 8, 7, 0, 1]])
    hugging_face("clip/vision", CLIPVisionModel(vision), images)
    hugging_face("clip/vision_projection", CLIPVisionModelWithProjection(vision), images)
    hugging_face("clip/text", CLIPTextModel(text), texts)
    hugging_face("clip/text_projection", CLIPTextModelWithProjection(text), texts)


def openai():
    text = dict(context_length=8, vocab_size=50, width=64, heads=1, layers=1)
    ids = [[48, 3, 17, 4, 49, 0, 0, 0], [48, 5, 9, 21, 7, 6, 2, 49]]
    vit = dict(layers=1, width=64, patch_size=8, image_size=16)
    resnet = dict(layers=(1, 2, 1, 1), width=4, image_size=64)
    for name, vision, side in (("vit", vit, 16), ("resnet", resnet, 64)):
        state = filled(CLIP(16, vision, text, quick_gelu=True)).state_dict()
        model = build_model_from_openai_state_dict(dict(state)).float()
        batch = name == "resnet"
        images = 4 * fill("image", (4, 3, 64, 64)) if batch else pixels(2, 3, side, side)
        original(f"clip/openai_{name}", model, state, dict(image=images, text=ids * (2 if batch else 1)),
                 loss=ClipLoss(), batch_statistics=batch)


def clip_open():
    vision = dict(layers=2, width=24, head_width=8, mlp_ratio=3.5, patch_size=8, image_size=24)
    text = dict(context_length=10, vocab_size=50, width=16, heads=2, layers=2)
    cfg = dict(embed_dim=16, quick_gelu=True, vision_cfg=vision,
               text_cfg=text | dict(pool_type="last", no_causal_mask=True, proj_type="none"))
    model = CLIP(**cfg)
    # trained on smaller pictures and shorter texts
    small = cfg | dict(vision_cfg=vision | dict(image_size=16), text_cfg=cfg["text_cfg"] | dict(context_length=7))
    state = filled(CLIP(**small)).state_dict()
    resized = dict(state)
    resize_pos_embed(resized, model)
    resize_text_pos_embed(resized, model)
    model.load_state_dict(resized)
    ids = [[48, 3, 17, 4, 45, 0, 0, 0, 0, 0], [48, 5, 9, 45, 7, 6, 2, 49, 45, 3]]
    inputs = dict(image=pixels(2, 3, 24, 24), text=ids)
    original("clip/open_clip_resized", model, state, inputs, cfg)
    cfg = dict(embed_dim=12, init_logit_bias=-3, custom_text=True,
               vision_cfg=vision | dict(ls_init_value=0.1, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
               text_cfg=text | dict(ls_init_value=0.1, pool_type="eos", eos_id=45, proj_bias=True, mlp_ratio=2,
                                    norm_kwargs=dict(eps=1e-4), act_kwargs=dict(approximate="tanh")))
    model = filled(CustomTextCLIP(**{k: v for k, v in cfg.items() if k != "custom_text"}))
    original("clip/open_clip_sigmoid", model, model.state_dict(), inputs, cfg, loss=SigLipLoss())


def siglip():
    vision = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=20,
                  patch_size=8, layer_norm_eps=1e-4)
    text = dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, vocab_size=50,
                max_position_embeddings=8)
    ids = [[3, 17, 4, 8, 30, 2, 6, 1], [5, 9, 21, 1, 1, 1, 1, 1], [7, 8, 9, 10, 1, 1, 1, 1]]
    whole = SiglipConfig(vision_config=vision, text_config=text)
    hugging_face("siglip/fixed", SiglipModel(whole),
                 dict(pixel_values=pixels(3, 3, 20, 20), input_ids=ids, return_loss=True),
                 stored=True, trained=True, hidden=True)
    mask = [[1] * 7, [0, 0] + [1] * 5, [1] * 4 + [0] * 3]
    wide = SiglipConfig(vision_config=vision | dict(hidden_size=24, hidden_act="gelu"),
                        text_config=text | dict(projection_size=24, hidden_act="relu"))
    hugging_face("siglip/interpolated", SiglipModel(wide),
                 dict(pixel_values=pixels(2, 3, 33, 24), input_ids=[row[:7] for row in ids], attention_mask=mask,
                      interpolate_pos_encoding=True))
    images = dict(pixel_values=pixels(2, 3, 20, 20))
    hugging_face("siglip/vision", SiglipVisionModel(SiglipVisionConfig(**vision)), images)
    hugging_face("siglip/vision_no_head", SiglipVisionModel(SiglipVisionConfig(**vision, vision_use_head=False)), images)
    hugging_face("siglip/text", SiglipTextModel(SiglipTextConfig(**text, projection_size=12)), dict(input_ids=ids))
    vision = {k: v for k, v in vision.items() if k != "image_size"} | dict(patch_size=3, num_patches=16)
    shapes = [[4, 4], [2, 6], [5, 3]]
    mask = [[int(i < h * w) for i in range(16)] for h, w in shapes]
    patches = dict(pixel_values=pixels(3, 16, 27), pixel_attention_mask=mask, spatial_shapes=shapes)
    whole = Siglip2Config(vision_config=vision, text_config=text)
    hugging_face("siglip2/naflex", Siglip2Model(whole), patches | dict(input_ids=ids, return_loss=True),
                 stored=True, trained=True, hidden=True)
    shapes = [[7, 3], [1, 22], [19, 1]]
    mask = [[int(i < h * w) for i in range(22)] for h, w in shapes]
    larger = dict(pixel_values=pixels(3, 22, 27), pixel_attention_mask=mask, spatial_shapes=shapes)
    hugging_face("siglip2/vision", Siglip2VisionModel(Siglip2VisionConfig(**vision)), larger)


def full(directory):
    """ViT-B/32, SigLIP and SigLIP 2 B/16, and RN50 as OpenAI released it, at their real sizes with random weights."""
    def write(folder, inputs, outputs):
        tensors = {f"in.{k}": v for k, v in inputs.items() if isinstance(v, torch.Tensor)}
        tensors |= {f"out.{k}": v for k, v in outputs.items()}
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / "golden.safetensors")
        print(folder.name)

    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(5, 32000, (3, 64), generator=generator)
    shapes = torch.tensor([[16, 16], [8, 30], [20, 10]])
    seen = (torch.arange(256) < shapes.prod(1, keepdim=True)).long()
    patches = dict(pixel_values=pixels(3, 256, 768), pixel_attention_mask=seen, spatial_shapes=shapes)
    clip_ids = torch.cat([torch.full((3, 1), 49406), ids[:, :40], torch.full((3, 1), 49407)], 1)
    images = dict(pixel_values=pixels(3, 3, 224, 224))
    for name, model, inputs in (
            ("clip-vit-base-patch32", CLIPModel(CLIPConfig()), images | dict(input_ids=clip_ids)),
            ("siglip-base-patch16-224", SiglipModel(SiglipConfig()), images | dict(input_ids=ids)),
            ("siglip2-base-patch16-naflex", Siglip2Model(Siglip2Config()), patches | dict(input_ids=ids % 256000))):
        folder = Path(directory) / name
        model.eval().save_pretrained(folder)
        with torch.no_grad():
            outputs = flat(model(**inputs, output_hidden_states=True))
        write(folder, inputs, outputs)
    vision, text = dict(layers=(3, 4, 6, 3), width=64, image_size=224), dict(
        context_length=77, vocab_size=49408, width=512, heads=8, layers=12)
    model = CLIP(1024, vision, text, quick_gelu=True).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # statistics and weights of a network that was trained are not those it begins with
                module.weight.uniform_(0.2, 0.6)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
        inputs = dict(image=images["pixel_values"], text=torch.nn.functional.pad(clip_ids, (0, 77 - clip_ids.shape[1])))
        model.output_dict = True
        outputs = model(**inputs)
        per_image, per_text = model.get_logits(**inputs)
    folder = Path(directory) / "openai-rn50"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "RN50.pt")
    write(folder, inputs, outputs | dict(logits_per_image=per_image, logits_per_text=per_text))


torch.manual_seed(0)
if sys.argv[1:2] == ["full"]:
    full(sys.argv[2])
    sys.exit()
clip()
openai()
clip_open()
siglip()
