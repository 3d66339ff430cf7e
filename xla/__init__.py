"""All that knows JAX: operations by their JAX functions, compiled programs, the device.

    ops                  an Op by its JAX function; the elementwise ones
    products             matrix products, and which of them may run in TF32
    layout               how images lie in memory
    convolution          cross-correlation and its gradients, in two ways:
    convolution_by_rows      as matrix products of rows of images
    convolution_by_xla       as XLA has them
    pooling              max pooling and its gradient
    statistics           column norms, overflow counts
    masks                dropout masks, drawn on the device
    graphs               PyTensor graphs as functions of arrays
    programs             a network's training step and test-time pass, compiled
    program_cache        compiled programs on disk
    device               its choice, name, memory and failures, arrays on it
    timing               single operations, for the benchmark

It imports errors and files, and nothing else of this repository.
"""
