//! What a model is: its switches, read from config.json or GGUF metadata.
