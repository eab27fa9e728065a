//! Layers over Burn tensors, KV cache, and the weights that fill them.
#![forbid(unsafe_code)]
