"""All that knows JAX: PyTensor operations and their JAX code, compiled programs, the device.

ops            an Op by its JAX function; elementwise operations that XLA must not rewrite
products       matrix products, and which of them may run in TF32
layout         how images lie in memory
convolution    cross-correlation and its gradients
pooling        max pooling and its gradient
statistics     column norms, overflow counts
masks          dropout masks, drawn on the device
programs       graphs as compiled programs: training, testing
program_cache  compiled programs on disk
device         the device: choice, name, memory, failures, arrays on it
timing         single operations in loops, for the benchmark
"""
