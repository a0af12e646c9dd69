//! Checkpoints (safetensors, PyTorch, hub) as GGUF sources.
