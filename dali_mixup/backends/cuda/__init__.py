"""The GPU backend: ``kernels/mixup.cu``, compiled when it is first used and launched by CuPy."""
