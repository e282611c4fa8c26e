"""Build recipe: the explicit list of packages, and the Cython kernels as plain extensions.

There is no `cythonize()` call on purpose: setuptools runs Cython by itself on a `.pyx` source, and only then
does the source distribution keep the `.pyx` files. A missing compiler is an error: there is no slow fallback.
"""

from setuptools import Extension, setup

PACKAGES = [
    "agent",
    "agent.deploy",
    "agent.models",
    "agent.offline",
    "agent.utility",
    "agent.verbs",
    "core",
    "firmware_io",
    "firmware_io.simulator",
]

KERNELS = [
    "core._attribution",
    "core._balance",
    "firmware_io._codec",
]

setup(
    packages=PACKAGES,
    ext_modules=[
        Extension(name, [name.replace(".", "/") + ".pyx"], extra_compile_args=["-O3", "-fno-math-errno"])
        for name in KERNELS
    ],
)
