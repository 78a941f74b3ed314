"""Sites: names for the places in a model where an activation is read or edited.

Here: the grammar of site patterns, regular expressions over module paths, their resolution against
a module tree, and the names that tab completion remembers. May use `vlmlens.errors` only; loads no
torch. A new spelling of a pattern belongs in `patterns`, a new meaning of one in `site_map`.
"""

from vlmlens.sites.patterns import parse_pattern
from vlmlens.sites.regex import PREFIX
from vlmlens.sites.site import Axis, Rename, Site, SiteTemplate
from vlmlens.sites.site_map import SiteMap

__all__ = ["PREFIX", "Axis", "Rename", "Site", "SiteMap", "SiteTemplate", "parse_pattern"]
