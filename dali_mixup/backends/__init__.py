"""How a plan is carried out: by numpy or numba, on torch's CPU tensors, or on a GPU.

Each backend is a module with the same functions: ``blend`` mixes images, ``soft_labels`` mixes
labels, and ``mix`` does both in one call.
"""
