//! Tensor types, presets, importance, recipes and the streaming quantization job.
