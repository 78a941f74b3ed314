"""Who opens the pictures of a run in leases: the planner each one once, a worker only its own."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests import _program

PICTURES = 70
PROBED = 9
"""Of pictures of one size: of those in samples from which lengths are fitted, and the first."""

COUNTED = """
import json, sys
from collections import Counter
from pathlib import Path
from vlmlens.compose.plan import compose
from vlmlens.extraction import planning
from vlmlens.registry import Registry
from vlmlens.runner import begin_worker
from vlmlens.runner.execution import execute
from vlmlens.spec.model import make_spec
from vlmlens.testing.engine import OneByOne

folder, out = sys.argv[1:3]
opened = Counter()


def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png"):
        opened[Path(str(arguments[0])).name] += 1


def taken():
    found = dict(opened)
    opened.clear()
    return found


class Counting(OneByOne):
    def run(self, work):
        self.planner = taken()
        self.leases, self.begun = [], {}
        super().run(work)

    def run_one(self, work, name, worker):
        self.begun = self.begun or taken()
        lease = work.take(name)
        work.finish(name, worker(lease, lambda done: None))
        own = {Path(image).name for sample in lease["samples"] for image in sample["images"]}
        self.leases.append([sorted(own), taken()])


planning._LEAST_LEASES = 80
sys.addaudithook(hook)
spec = make_spec({
    "data": f"images:{folder}", "prompt": ["What?", "Where?"], "batch_size": 2, "out": out,
    "sites": ["llm.block.0/last"],
})
engine = Counting()
execute(compose(spec, Registry.default(), analyse=False), extract_only=True, engine=engine)
print(json.dumps([engine.planner, engine.begun, engine.leases]))
"""


def test_each_picture_is_opened_once_by_the_planner(tmp_path: Path) -> None:
    for number in range(PICTURES):
        Image.new("RGB", (24, 24), (3 * number, 0, 0)).save(tmp_path / f"{number:02}.png")
    done = _program.python(COUNTED, str(tmp_path), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    planner, begun, leases = json.loads(done.stdout)
    assert len(leases) >= 64
    assert sorted(planner) == [f"{number:02}.png" for number in range(PICTURES)]
    again = {name: count - 1 for name, count in planner.items() if count > 1}
    assert len(again) <= PROBED, "all but the few that tell how samples are encoded are read once"
    assert sum(again.values()) <= PROBED + 2, "the first one is tried in three ways"
    assert len(begun) <= 2, "a worker tries its model with the first samples"
    for own, opened in leases:
        assert set(opened) <= set(own)
        assert set(opened.values()) == {1}
