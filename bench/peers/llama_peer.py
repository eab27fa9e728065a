"""llama.cpp: llama_peer.py BUILD FILE PROMPT_TOKENS TOKENS THREADS WARMUP REPEAT, where BUILD is a directory of setup.sh."""

import ctypes
import statistics
import sys
import time

sys.path.insert(0, sys.argv[1])
import llama_cpp as llama  # noqa: E402
from measure import measure, report  # noqa: E402

path = sys.argv[2]
prompt_tokens, tokens, threads, warmup, repeat = map(int, sys.argv[3:8])
# its log would drown the result; the callback has to outlive the model
silent = llama.llama_log_callback(lambda level, text, data: None)
llama.llama_log_set(silent, ctypes.c_void_p(0))
llama.llama_backend_init()
model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
settings = llama.llama_context_default_params()
settings.n_ctx = prompt_tokens + tokens + 8
settings.n_batch = settings.n_ubatch = max(512, prompt_tokens)
settings.n_threads = settings.n_threads_batch = threads
context = llama.llama_init_from_model(model, settings)
memory = llama.llama_get_memory(context)
prompt = (llama.llama_token * prompt_tokens)(*(i * 7919 % 151936 for i in range(prompt_tokens)))
prefill, decode = [], []


def feed(ids):
    if llama.llama_decode(context, llama.llama_batch_get_one(ids, len(ids))):
        sys.exit("llama_decode failed")
    llama.llama_synchronize(context)


def once():
    llama.llama_memory_clear(memory, True)
    begun = time.perf_counter()
    feed(prompt)
    prompted = time.perf_counter()
    for i in range(tokens):
        feed((llama.llama_token * 1)(31 * i % 1000))
    prefill.append(prompted - begun)
    decode.append(time.perf_counter() - prompted)


measured = measure(once, warmup, repeat)
report(measured, llama.__version__, prefill_tok_s=round(prompt_tokens / statistics.median(prefill[warmup:]), 1),
       decode_tok_s=round(tokens / max(statistics.median(decode[warmup:]), 1e-9), 1))
