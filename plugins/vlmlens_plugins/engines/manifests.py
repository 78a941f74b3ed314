"""The cards of the engines that ship with vlmlens."""

from vlmlens.manifest import Manifest, PluginKind

PROCESSES = Manifest(
    kind=PluginKind.ENGINE,
    name="processes",
    target="vlmlens_plugins.engines.processes:Processes",
    help="Processes on this machine, each on its own GPU if there are as many.",
    checks="vlmlens_plugins.engines.checks:PROCESSES_CHECKS",
)

ENVIRONMENT = Manifest(
    kind=PluginKind.ENGINE,
    name="environment",
    target="vlmlens_plugins.engines.environment:Environment",
    help="The processes that srun or torchrun started, or --shard K/N, on a disk they share.",
    aliases=("slurm", "torchrun"),
    checks="vlmlens_plugins.engines.checks:ENVIRONMENT_CHECKS",
)

RAY = Manifest(
    kind=PluginKind.ENGINE,
    name="ray",
    target="vlmlens_plugins.engines.ray:RayEngine",
    help="Actors of a Ray cluster, or of Ray on this machine. Needs the extra ray.",
    requires=("ray",),
    checks="vlmlens_plugins.engines.checks:RAY_CHECKS",
)
