"""Pages of single features: what a feature does, in which samples, and what it separates.

- `choosing.py`: which features are shown, by the learning samples alone;
- `shown.py`, `pictured.py`: which held-out samples, and what their rows stand for;
- `units.py`, `testing.py`: what features separate, against shuffled labels; names from it;
- `written.py`: output tokens that a direction raises and lowers;
- `explaining.py`: a function of the user's own;
- `files.py`: pages as JSON; `making.py` puts all together.
"""

from vlmlens_plugins.analysis.sae.pages.choosing import asked_for
from vlmlens_plugins.analysis.sae.pages.explaining import Explainer
from vlmlens_plugins.analysis.sae.pages.files import read_page, write_pages
from vlmlens_plugins.analysis.sae.pages.making import Looking, pages
from vlmlens_plugins.analysis.sae.pages.testing import LEAST_AREA

__all__ = [
    "LEAST_AREA", "Explainer", "Looking", "asked_for", "pages", "read_page", "write_pages",
]  # fmt: skip
