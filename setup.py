"""Build recipe: the explicit list of packages, and the Cython kernels as plain extensions.

There is no `cythonize()` call on purpose: setuptools runs Cython by itself on a `.pyx` source, and only then
does the source distribution keep the `.pyx` files. A missing compiler is an error: there is no slow fallback.
"""

from setuptools import Extension, setup

PACKAGES = [
    "agent",
    "agent.alerts",
    "agent.charts",
    "agent.cli",
    "agent.cli.gateway",
    "agent.cli.lab",
    "agent.cli.meter",
    "agent.cli.site",
    "agent.deploy",
    "agent.downlink",
    "agent.forecast",
    "agent.keys",
    "agent.models",
    "agent.offline",
    "agent.offline.case",
    "agent.offline.demo",
    "agent.offline.evaluation",
    "agent.offline.replay",
    "agent.offline.training",
    "agent.offline.world",
    "agent.pipeline",
    "agent.polling",
    "agent.process",
    "agent.service",
    "agent.site",
    "agent.status",
    "agent.store",
    "agent.uplink",
    "agent.utility",
    "agent.utility.dashboards",
    "agent.utility.fleet",
    "agent.utility.ingest",
    "agent.utility.load_test",
    "agent.utility.mqtt",
    "agent.utility.sql",
    "agent.utility.verbs",
    "agent.utility.web",
    "agent.utility.web.signin",
    "agent.wire",
    "core",
    "core.attribution",
    "core.balance",
    "core.detection",
    "core.fast",
    "core.forecast",
    "core.monitor",
    "core.registers",
    "core.scoring",
    "firmware_io",
    "firmware_io.asking",
    "firmware_io.dlms",
    "firmware_io.dlms.apdu",
    "firmware_io.dlms.cosem",
    "firmware_io.dlms.hdlc",
    "firmware_io.dlms.meter",
    "firmware_io.dlms.protection",
    "firmware_io.dlms.session",
    "firmware_io.dlt645",
    "firmware_io.dlt698",
    "firmware_io.mbus",
    "firmware_io.modbus",
    "firmware_io.simulator",
    "firmware_io.simulator.building",
    "firmware_io.simulator.dlt645",
    "firmware_io.simulator.dlt698",
    "firmware_io.simulator.line",
    "firmware_io.simulator.mbus",
    "firmware_io.simulator.meter",
    "firmware_io.simulator.modbus",
]

KERNELS = [
    "core.attribution._attribution",
    "core.balance._balance",
    "core.registers._align",
    "firmware_io._octets",
    "firmware_io.dlms._codec",
]

setup(
    packages=PACKAGES,
    ext_modules=[
        Extension(name, [name.replace(".", "/") + ".pyx"], extra_compile_args=["-O3", "-fno-math-errno"])
        for name in KERNELS
    ],
)
