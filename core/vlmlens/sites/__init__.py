"""Sites: names for the places in a model where an activation is read or edited.

Holds the grammar of site patterns, regular expressions over module paths, their resolution against
a module tree, and the names that tab completion offers. May use `vlmlens.errors` only, and does not
load torch. Add new pattern syntax to `patterns`, and what a pattern matches to `site_map`.
"""

from vlmlens.sites.anatomy import read_anatomy
from vlmlens.sites.patterns import parse_pattern
from vlmlens.sites.regex import PREFIX
from vlmlens.sites.site import Axis, Rename, Site, SiteTemplate
from vlmlens.sites.site_map import SiteMap

__all__ = [
    "PREFIX",
    "Axis",
    "Rename",
    "Site",
    "SiteMap",
    "SiteTemplate",
    "parse_pattern",
    "read_anatomy",
]
