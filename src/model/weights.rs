//! Weights as stored: memory-mapped safetensors and GGUF, one resident copy.
