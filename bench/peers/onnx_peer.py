"""ONNX Runtime and OpenVINO on ViT-B/16: onnx_peer.py onnxruntime|openvino PRECISION BATCH THREADS WARMUP REPEAT MODELS."""

import sys

import numpy as np
from measure import measure, report

engine, precision = sys.argv[1:3]
batch, threads, warmup, repeat = map(int, sys.argv[3:7])
path = f"{sys.argv[7]}/vit-b-16-batch-{batch}.onnx"
pixels = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)

if engine == "onnxruntime":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    version = onnxruntime.__version__

    def once():
        session.run(None, {"pixels": pixels})
else:
    import openvino

    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        sys.exit(f"OpenVINO computes no bf16 on this processor: {able}")
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    version = openvino.__version__.split("-")[0]

    def once():
        request.infer({"pixels": pixels})

report(measure(once, warmup, repeat), version)
