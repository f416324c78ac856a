"""Public functions compiled with XLA's own settings, against NumPy in float64.

Each row of the table computes something at the shapes that compilers treat differently, and gives
the value that NumPy and SciPy compute from the same float32 inputs, without code of the package.
A comparison of compiled with eager code cannot replace it: both use the same kernels.
"""
