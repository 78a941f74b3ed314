"""Does a received run folder, run file or store ever run code, go online or read other files?

A run of another user is given one trick after the other: Python files, remote code, URIs, pictures
and links elsewhere, pipes, escapes, nested values. Every command that looks at a run is called on
each. The process watches itself: an audit hook sees each file that is opened and each connection.
Exit code 0: nothing ran, nothing was reached, no command ended in a traceback.

    python -m benchmarks.attacks.hostile_run --seed 0 --rounds 40
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from vlmlens._clean import UNSAFE
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.cli._app import app
from vlmlens.report.files import write_result
from vlmlens.results import Result
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec, read_yaml

COLUMN = "llm.block.1/last"
ESCAPES = "\x1b]0;PWNED\x07\x1b[2J\x9b2J"
CODE = """
import pathlib
pathlib.Path(__file__).with_name("RAN").touch()
from vlmlens.abc import Analysis, ColumnStore, Dataset, Extractor, ModelAdapter
class S(ColumnStore): ...
"""

Trick = Callable[["Got", random.Random], None]


@dataclass
class Got:
    """A received run, and what is around it.

    Args:
        folder: The run.
        around: The folder in which the victim works.
        secret: A picture of the victim that nobody is to open.
        port: Where a listener waits for connections that must not come.
    """

    folder: Path
    around: Path
    secret: Path
    port: int

    def spec(self, **values: Any) -> None:
        """Edit the spec, as its maker or somebody on the way can."""
        text = {**read_yaml(self.folder / "spec.yaml"), **values}
        (self.folder / "spec.yaml").write_text(json.dumps(text))

    def code(self, random_: random.Random) -> str:
        """A Python file in the run, spelled in one of several ways."""
        (self.folder / "plugins").mkdir(exist_ok=True)
        file = self.folder / "plugins" / "x.py"
        file.write_text(CODE)
        inside = file.relative_to(self.around)
        spelled = [f"{inside}", f"./{inside}", f"{file}", f"{self.folder.name}/../{inside}"]
        return random_.choice(spelled) + random_.choice([":S", ""])

    def pictures(self, name: str) -> None:
        """Let the samples name a picture."""
        records = [{**each, "images": [name]} for each in Run(self.folder).sample_records()]
        lines = "".join(json.dumps(each) + "\n" for each in records)
        (self.folder / "samples.jsonl").write_text(lines)


@dataclass
class Watch:
    """What this process does, as the interpreter reports it."""

    got: Got | None = None
    seen: list[str] = field(default_factory=list)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Remember what must not happen."""
        if self.got is None:
            return
        if event == "open" and str(arguments[0]) == str(self.got.secret):
            self.seen.append(f"opened {arguments[0]}")
        if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
            self.seen.append(f"{event} {arguments[1:2]}")


def storage_is_code(got: Got, random_: random.Random) -> None:
    """A Python file as storage, also in a URI."""
    got.spec(storage=got.code(random_) + random_.choice(["", "://x", "+http://x"]))


def part_is_code(got: Got, random_: random.Random) -> None:
    """A Python file as adapter, extractor or dataset."""
    part = random_.choice(["adapter", "extractor", "data"])
    got.spec(**{part: got.code(random_)})


def analysis_is_code(got: Got, random_: random.Random) -> None:
    """A Python file as analysis."""
    got.spec(analysis={got.code(random_): {}})


def suggestion_is_code(got: Got, random_: random.Random) -> None:
    """A Python file among the options that the data suggests."""
    Run(got.folder).update(suggested={got.code(random_): {}, "probe": {"folds": "x"}})


def remote_code(got: Got, random_: random.Random) -> None:
    """A checkpoint with code."""
    place = got.folder / "ck"
    place.mkdir()
    (place / "evil.py").write_text(CODE)
    automatic = {"AutoConfig": "evil.S", "AutoModelForImageTextToText": "evil.S"}
    (place / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": automatic}))
    model = random_.choice([str(place), str(place.relative_to(got.around))])
    got.spec(adapter="hf", model=model, trust_remote_code=True, analysis={"logit-lens": {}})


def hub_checkpoint(got: Got, random_: random.Random) -> None:
    """A checkpoint of the hub."""
    got.spec(adapter="hf", model=f"someone/m{random_.randrange(9)}", analysis={"logit-lens": {}})


def remote_storage(got: Got, random_: random.Random) -> None:
    """A URI as storage."""
    scheme = random_.choice(["zarr+http", "zarr+https", "zarr+ftp", "zarr+simplecache::http"])
    got.spec(storage=f"{scheme}://127.0.0.1:{got.port}/x")


def run_log(got: Got, random_: random.Random) -> None:
    """A log that sends the results away."""
    to = random_.choice([{"to": "wandb", "online": True}, {"to": "trackio", "space": "a/b"}])
    got.spec(options={"plugins": {"run-log": to}})


def shard_is_code(got: Got, random_: random.Random) -> None:
    """A shard with a spec of its own."""
    shard = got.folder / "shards" / "0-of-1"
    own = got.folder.with_name("own")
    shutil.copytree(got.folder, own)
    shard.parent.mkdir()
    shutil.move(own, shard)
    (shard / "spec.yaml").write_text(json.dumps({"storage": got.code(random_)}))


def picture_elsewhere(got: Got, random_: random.Random) -> None:
    """A picture of the victim's."""
    up = "../" * random_.randrange(1, 3)
    name = random_.choice(
        [
            str(got.secret),
            got.secret.name,
            f"{got.folder}/{up}{got.secret.name}",
            f"sha256:../../{got.secret.stem}",
            f"file://{got.secret}",
            f"http://127.0.0.1:{got.port}/x.png",
        ]
    )
    (got.folder / "images").mkdir(exist_ok=True)
    got.pictures(name)


def picture_is_link(got: Got, _: random.Random) -> None:
    """A link to a picture of the victim's."""
    (got.folder / "images").mkdir()
    (got.folder / "images" / "a.png").symlink_to(got.secret)
    got.pictures(str(got.folder / "images" / "a.png"))


def linked_parts(got: Got, random_: random.Random) -> None:
    """A part of the run that is a link to another place."""
    name = random_.choice(["results", "columns", "plugins", "images", "samples.jsonl"])
    path = got.folder / name
    (shutil.rmtree if path.is_dir() else Path.unlink)(path) if path.exists() else None  # type: ignore[operator]
    path.symlink_to(got.secret if "." in name else got.around / "elsewhere")


def pipes(got: Got, random_: random.Random) -> None:
    """A pipe that nobody writes to."""
    name = random_.choice(["samples.jsonl", "skipped.jsonl", "generated.jsonl", "results/a.json"])
    (got.folder / name).unlink(missing_ok=True)
    os.mkfifo(got.folder / name)


def escapes(got: Got, random_: random.Random) -> None:
    """Texts that steer a terminal."""
    got.pictures(f"{ESCAPES}.png")
    Run(got.folder).update(warnings=[ESCAPES], columns=[ESCAPES, "$(touch RAN)"], state=ESCAPES)
    got.spec(storage=random_.choice(["sqlite", ESCAPES]), prompt=[ESCAPES])


def deep(got: Got, random_: random.Random) -> None:
    """Values that are nested deeply, or repeat themselves."""
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    bombs = ["options: " + "[" * 3000, "options: " + "{a: " * 200, "\n".join(lines)]
    (got.folder / "spec.yaml").write_text(random_.choice(bombs))


def other_working_folder(got: Got, random_: random.Random) -> None:
    """A checkpoint's name that leads to a folder with code, where run.json says so."""
    place = got.folder / "org" / "name"
    place.mkdir(parents=True)
    (place / "evil.py").write_text(CODE)
    automatic = {"AutoConfig": "evil.S", "AutoProcessor": "evil.S"}
    (place / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": automatic}))
    Run(got.folder).update(working_folder=random_.choice([str(got.folder), got.folder.name]))
    got.spec(adapter="hf", model="org/name", trust_remote_code=random_.random() < 0.5)


def wrong_records(got: Got, random_: random.Random) -> None:
    """Files of the run that hold something else than they should."""
    wrong = random_.choice(["[" * 100_000, '{"a":' * 50_000, "[1]", "null", '{"a": 1}', "\x00", ""])
    names = ["run.json", "samples.jsonl", "skipped.jsonl", "generated.jsonl", "results/norms.json"]
    (got.folder / random_.choice(names)).write_text(wrong)


TRICKS: tuple[Trick, ...] = (
    storage_is_code,
    part_is_code,
    analysis_is_code,
    suggestion_is_code,
    remote_code,
    hub_checkpoint,
    remote_storage,
    run_log,
    shard_is_code,
    picture_elsewhere,
    picture_is_link,
    linked_parts,
    pipes,
    escapes,
    deep,
    other_working_folder,
    wrong_records,
    wrong_records,
    wrong_records,
)

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("show", "{run}"),
    ("show", "{run}", "--columns"),
    ("show", "{run}", COLUMN),
    ("show", "{run}", "--json"),
    ("verify", "{run}"),
    ("report", "{run}"),
    ("export", "{run}", "{out}.npz"),
    ("export", "{run}", "{out}.parquet"),
    ("import", "{run}", "{out}.db"),
    ("compare", "{run}", "{run}", "--to", "{out}.html"),
    ("merge", "{run}"),
    ("analyze", "{run}"),
    ("analyze", "{run}", "--analysis", "logit-lens"),
    ("sites", "-c", "{run}/spec.yaml"),
    ("estimate", "-c", "{run}/spec.yaml", "--limit", "1"),
    ("run", "--dry-run", "-c", "{run}/spec.yaml", "--limit", "1"),
    ("run", "--dry-run", "--data", "{run}", "--limit", "1"),
)


def main() -> int:
    """Run the rounds; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2 * len(TRICKS), help="tricks played")
    given = parser.parse_args()
    random_, watch = random.Random(given.seed), Watch()
    sys.addaudithook(watch.hook)
    faults = []
    with tempfile.TemporaryDirectory() as place, socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        for number in range(given.rounds):
            trick = TRICKS[number % len(TRICKS)]
            around = Path(place, str(number))
            got = received(around, trap.getsockname()[1])
            trick(got, random_)
            found = played(got, watch) + connections(trap)
            faults += [f"{trick.__name__}: {each}" for each in found]
            print(f"{number:3d} {trick.__name__:20} {'; '.join(found) or 'nothing'}")
    print(f"{given.rounds} tricks x {len(COMMANDS)} commands: {len(faults)} faults")
    return 1 if faults else 0


def received(around: Path, port: int) -> Got:
    """A run that another user made, in the folder where the victim works."""
    (around / "elsewhere").mkdir(parents=True)
    secret = around / "private.png"
    Image.new("RGB", (16, 16), "red").save(secret)
    got = Got(around / "got", around, secret, port)
    os.environ["VLMLENS_STATE"] = str(around / "theirs")
    run = Run.create(got.folder, make_spec({"storage": "sqlite"}), {"state": "finished"})
    run.write_samples([Sample(name, "What?", label=name) for name in "ab"])
    write_result(Result("norms", "Norms"), got.folder / "results")
    values = Values(np.ones((2, 3), np.float32), "float32")
    with run.store(mode="a") as store:
        store.write(ColumnBlock(("a", "b"), {COLUMN: values}))
    run.update(columns=[COLUMN])
    os.environ["VLMLENS_STATE"] = str(around / "mine")
    return got


def played(got: Got, watch: Watch) -> list[str]:
    """What went wrong when every command looked at the run."""
    faults, before = [], Path.cwd()
    os.chdir(got.around)
    watch.got, watch.seen = got, []
    try:
        for number, command in enumerate(COMMANDS):
            names = {"run": got.folder.name, "out": f"elsewhere/out{number}"}
            done = CliRunner().invoke(app, [each.format(**names) for each in command])
            said = done.output + done.stderr
            if "This is a bug" in said or done.exit_code not in (0, 2):
                faults.append(f"{' '.join(command)} ended with {done.exit_code}: {said[-200:]!r}")
            if "--json" not in command and UNSAFE.search(said):
                faults.append(f"{' '.join(command)} printed escapes")
    finally:
        watch.got = None
        os.chdir(before)
    ran = [str(path) for path in got.around.rglob("RAN")]
    page = got.folder / "report.html"
    shown = (
        ["the page holds a picture"]
        if page.is_file() and b"data:image/png" in page.read_bytes()
        else []
    )
    return [*faults, *watch.seen, *(f"{path} ran" for path in ran), *shown]


def connections(trap: socket.socket) -> list[str]:
    """Connections that came."""
    try:
        trap.accept()
    except BlockingIOError:
        return []
    return ["somebody connected"]


if __name__ == "__main__":
    raise SystemExit(main())
