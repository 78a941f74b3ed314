"""Discovery of plugins: what is installed, what is wrong with it, and what to do.

>>> from vlmlens.manifest import PluginKind
>>> Registry(entry_points=[]).entries(PluginKind.ADAPTER)
[]
"""

from vlmlens.registry._entry import HOOK_GROUP, Entry, Status
from vlmlens.registry._hooks import call_hook
from vlmlens.registry._registry import Registry

__all__ = ["HOOK_GROUP", "Entry", "Registry", "Status", "call_hook"]
