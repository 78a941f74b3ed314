"""The SAEs of a place: read from files, trained, or found trained already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmlens._display import count
from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import DataError, VlmlensError
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.sae.held import Split, only_pictures, pictures_of
from vlmlens_plugins.analysis.sae.options import TrainOptions
from vlmlens_plugins.analysis.sae.pages import asked_for
from vlmlens_plugins.analysis.sae.peaks import peaks
from vlmlens_plugins.analysis.sae.places import Place
from vlmlens_plugins.analysis.sae.settings import Setting, batch_size, rows_seen, settings
from vlmlens_plugins.sae import (
    About,
    JoinedRows,
    Recipe,
    Rows,
    Sae,
    Shuffled,
    Trained,
    in_pieces,
    open_kept,
    open_sae,
    save_sae,
    train,
)  # fmt: skip
from vlmlens_plugins.sae.about import LARGEST

_FORMAT = 1
_LOOKED_AT = 8
_CODED = 8192
_FEWEST_ROWS = 64
_CHECKPOINT = "training.safetensors"


@dataclass(frozen=True, slots=True)
class Made:
    """An SAE with its file.

    Args:
        name: What sets it apart at its place: its setting, or its file.
        sae: The SAE.
        folder: Where it is saved.
        setting: How it was trained; None: it was read from a file.
    """

    name: str
    sae: Sae
    folder: Path
    setting: Setting | None = None

    @property
    def trained(self) -> Mapping[str, Any]:
        """What is known of its training."""
        return self.sae.about.trained


@dataclass(frozen=True, slots=True)
class Making:
    """What SAEs of a place are made from.

    Args:
        context: The context of the analysis.
        vlm: The model, if there is one.
        place: The place.
        split: Samples to learn from and to judge.
        rows: All rows of the place; `target` likewise, of a transcoder.
        fed: Those that are trained on; `fed_target` likewise.
        folder: Where SAEs are saved.
    """

    context: AnalysisContext
    vlm: ModelAdapter | None
    place: Place
    split: Split
    rows: Rows
    target: Rows | None
    fed: Rows
    fed_target: Rows | None
    folder: Path

    def check(self, options: TrainOptions, asked: Sequence[int]) -> None:
        """Raise an error for what is known to be wrong before training.

        Args:
            options: The options.
            asked: Features that the first SAE must have.

        Raises:
            SpecError: It will not have them, or a number is one that no SAE can have.
            DataError: There are too few rows.
        """
        there = _rows_there(self.fed, self.split.learn)
        _check_rows(there, self.place)
        wanted = settings(options, self.rows.width, there, self.context.seed)
        asked_for(asked, wanted[0].features)
        self._say_lowered(options, wanted)
        for setting in wanted:
            _recipe(options, setting)

    def trained(self, options: TrainOptions, progress: Callable[[int, int], None]) -> list[Made]:
        """Train what the options mean; what is in the folder from before is not trained again."""
        there = _rows_there(self.fed, self.split.learn)
        wanted = settings(options, self.rows.width, there, self.context.seed)
        batch = batch_size(options, there)
        rows = rows_seen(options, there, batch)
        recipes = [_recipe(options, setting) for setting in wanted]
        keys = [self._key(recipe, rows, batch, options) for recipe in recipes]
        folders = [self.folder / self._named(options, setting) for setting in wanted]
        known = [_kept(*pair) for pair in zip(folders, keys, strict=True)]
        missing = [i for i, sae in enumerate(known) if sae is None]
        made: dict[int, Sae] = {}
        if missing:
            checkpoint = self._checkpoint([keys[i] for i in missing])
            chosen = [recipes[i] for i in missing]
            found = self._train(chosen, rows, batch, options, progress, checkpoint)
            saes_now = [self._known(one, keys[i]) for i, one in zip(missing, found, strict=True)]
            for i, one, sae in zip(missing, found, saes_now, strict=True):
                save_sae(folders[i], sae, sparsity=one.density.tolist())
                made[i] = sae
            checkpoint.unlink(missing_ok=True)
        saes = [made.get(i, sae) for i, sae in enumerate(known)]
        return [
            Made(setting.name, sae, folder, setting)
            for setting, sae, folder in zip(wanted, saes, folders, strict=True)
            if sae is not None
        ]

    def _say_lowered(self, options: TrainOptions, wanted: Sequence[Setting]) -> None:
        for setting in wanted:
            if options.k and setting.k not in options.k:
                self.context.warn(
                    f"k is {setting.k:g} instead of {max(options.k):g} with {setting.features} "
                    "features: at most an eighth of them fire."
                )

    def _train(
        self,
        recipes: Sequence[Recipe],
        rows: int,
        batch: int,
        options: TrainOptions,
        progress: Callable[[int, int], None],
        checkpoint: Path,
    ) -> list[Trained]:
        parts = [self.fed] if self.fed_target is None else [self.fed, self.fed_target]
        feed = Shuffled(
            *parts,
            batch=batch,
            samples=self.split.learn,
            seed=self.context.seed,
            buffer=options.buffer,
            together=self._together(),
        )
        return train(
            recipes, feed, rows=rows, device=options.device, checkpoint=checkpoint,
            progress=progress, warn=self.context.warn,
        )  # fmt: skip

    def _checkpoint(self, keys: Sequence[str]) -> Path:
        """The file from which this very training goes on; those of others stay, which is said."""
        digest = hashlib.blake2b("".join(keys).encode(), digest_size=6).hexdigest()
        start = f"sae.{slug(self.place.name)}."
        found = self.folder / f"{start}{digest}.{_CHECKPOINT}"
        others = sorted({*self.folder.glob(f"{start}*.{_CHECKPOINT}")} - {found})
        if others:
            self.context.warn(
                f"{others[0]} is of a training with other options or samples that was interrupted "
                f"({others[0].stat().st_size / 2**20:,.1f} MiB). Remove it if that is not to go on."
            )
        return found

    def _together(self) -> list[Hashable] | None:
        """What tells samples whose common beginning is computed once."""
        if self.place.stored or all(map(only_pictures, self.place.columns)):
            return None
        return [pictures_of(self.context.samples[number]) for number in self.split.learn]

    def _known(self, one: Trained, key: str) -> Sae:
        """The SAE with everything that is known about it."""
        trained = {
            **one.sae.about.trained,
            "key": key,
            "losses": [list(p) for p in one.losses],
            LARGEST: self._largest(one.sae),
        }
        about = About(
            column=self.place.name if not self.place.target else self.place.column,
            target=self.place.target,
            model=self._model(),
            trained=trained,
            scales=self._scales(),
        )
        return replace(one.sae, about=about)

    def _model(self) -> Mapping[str, Any]:
        """What tells the model that the rows are of; of stored rows, without it, the store does."""
        if self.vlm is not None:
            return self.vlm.describe()
        known: Mapping[str, Any] = self.context.store.get_meta().get("fingerprint") or {}
        return dict(known)

    def _largest(self, sae: Sae) -> list[float]:
        """The largest code of each feature in some thousands of the rows that it learnt from."""
        learn = self.split.learn
        each = max(1, _rows_there(self.fed, learn) // len(learn))
        wanted = max(1, _CODED // each)
        some = learn[:: max(1, len(learn) // wanted)][:wanted]
        found = peaks(sae, self.fed, some).largest.max(axis=0).toarray().ravel()
        return [float(f"{code:.6g}") for code in found]

    def _scales(self) -> dict[str, tuple[int, float]]:
        if not isinstance(self.rows, JoinedRows):
            return {}
        pairs = zip(self.place.columns, self.rows.widths, self.rows.scales, strict=True)
        return {name: (width, scale) for name, width, scale in pairs}

    def _named(self, options: TrainOptions, setting: Setting) -> str:
        settled = f"{options.kind}-{setting.features}-k{setting.k:g}-s{setting.seed}"
        return f"sae.{slug(self.place.name)}.{settled}"

    def _key(self, recipe: Recipe, rows: int, batch: int, options: TrainOptions) -> str:
        """A digest of everything that the numbers of an SAE depend on, beside the machine."""
        said = {
            "format": _FORMAT,
            "recipe": recipe.record(),
            "rows": rows,
            "batch": batch,
            "buffer": options.buffer,
            "per_image": options.per_image,
            "columns": [*self.place.columns, self.place.target],
            "stored": self.place.stored,
            "model": self._model(),
            "store": self.context.store.get_meta().get("fingerprint"),
            "samples": [self.context.samples[i].fingerprint() for i in self.split.learn],
            "seed": self.context.seed,
        }
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def opened(
    files: Sequence[str],
    place: Place,
    places: Sequence[Place],
    progress: Callable[[int, int], None],
) -> list[Made]:
    """The SAEs of files that belong to a place.

    So do those that do not say where they belong, and those that belong to none of the places.
    """
    columns = {each.column for each in places}
    found = []
    for number, file in enumerate(files):
        sae = open_kept(file)
        if sae.about.column == place.column or sae.about.column not in columns:
            found.append(Made(file, sae, Path(file).expanduser()))
        progress(number + 1, len(files))
    return found


def training_words(made: Made) -> str:
    """How an SAE was trained, in a sentence; "" if it is not known."""
    known = made.trained
    if "steps" not in known:
        return ""
    return (
        f"{made.name}: {known['kind']}, {count(int(known['steps']), 'step')} of "
        f"{known['batch']:,} rows, {known['rows']:,} in all, the same ones several times where "
        "there are fewer."
    )


def _check_rows(rows: int, place: Place) -> None:
    if rows < _FEWEST_ROWS:
        raise DataError(
            f"About {rows} rows of {place.name} are there to learn from; an SAE would know them "
            "by heart.",
            subject=place.name,
            hint=f"Give more samples: {_FEWEST_ROWS} rows are the least, a hundred for each "
            "feature are better.",
        )


def _recipe(options: TrainOptions, setting: Setting) -> Recipe:
    whole = options.kind == "topk"
    return Recipe(
        setting.features,
        options.kind,
        float(max(1, round(setting.k))) if whole else setting.k,
        setting.seed,
        options.coefficient,
        options.lr,
        options.centre,
        options.normalise,
        options.dtype,
    )


def _kept(folder: Path, key: str) -> Sae | None:
    """The SAE that is in a folder, if it is the one that would be trained."""
    if not folder.is_dir():
        return None
    try:
        found = open_sae(folder)
    except VlmlensError:
        return None
    return found if found.about.trained.get("key") == key else None


def _rows_there(rows: Rows, samples: Sequence[int]) -> int:
    """About how many rows samples have, from some of them."""
    step = max(1, len(samples) // _LOOKED_AT)
    some = samples[::step][:_LOOKED_AT]
    read = sum(len(part) for _, parts in in_pieces(rows, some) for part in parts)
    return max(1, round(read * len(samples) / len(some)))
