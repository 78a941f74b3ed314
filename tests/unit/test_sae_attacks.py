"""Files of SAEs that lie, that are damaged, or that want to run code: all are refused."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save, save_file
from tests.unit._sae_files import (
    FEATURES,
    LINEAR,
    PLAIN,
    WIDTH,
    C,
    array,
    dictionary,
    k_and,
    lens,
    prisma,
    saev,
    sparsify,
)

from vlmlens.errors import DataError, DataNotFound
from vlmlens_plugins.sae import Sae, TopK, open_sae, save_sae, sparsity_of

WEIGHTS = "sae_weights.safetensors"


def refused(path: Path, *words: str) -> str:
    with pytest.raises(DataError) as raised:
        open_sae(path)
    text = str(raised.value)
    assert str(path) in text
    assert [word for word in words if word not in text] == []
    assert len(text) < 800
    assert raised.value.hint
    return text


@pytest.fixture
def folder(tmp_path):
    return lens("standard", PLAIN)(tmp_path / "sae")


class RunsCode:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return (Path.touch, (self._path,))


class TakesMemory:
    """Asks for a terabyte, with a class that torch would allow."""

    def __reduce__(self):
        return (bytearray, (10**12,))


class TestPickles:
    def test_code_in_a_pickle_is_named_and_not_run(self, tmp_path):
        made = tmp_path / "made"
        folder = prisma({"cfg": RunsCode(made)}, activation_fn_str="relu")(tmp_path / "sae")
        refused(folder, "other classes than tensors", "pathlib", "load_from_pretrained")
        refused(folder / "weights.pt", "pathlib")
        assert not made.exists()

    def test_what_is_no_mapping_of_tensors_is_refused(self, tmp_path):
        folder = dictionary("AutoEncoder", LINEAR | {"bias": "text"})(tmp_path / "sae")
        refused(folder, "more than tensors by name: ['bias']")
        torch.save([torch.ones(2)], folder / "ae.pt")
        refused(folder, "holds a list")
        torch.save({str(number): torch.ones(1) for number in range(99)}, folder / "ae.pt")
        refused(folder, "99 tensors")
        torch.save({"bias": torch.ones(2, dtype=torch.bool)}, folder / "ae.pt")
        refused(folder, "torch.bool")

    def test_a_bare_file_with_objects_says_how_to_convert_it(self, tmp_path):
        torch.save({"cfg": RunsCode(tmp_path / "made"), "state_dict": {}}, tmp_path / "patch.pt")
        refused(tmp_path / "patch.pt", "torch.save(sae.state_dict(), FILE)")

    def test_memory_is_not_asked_for(self, tmp_path):
        torch.save({"pre_bias": TakesMemory(), "latent_bias": 1}, tmp_path / "x.pt")
        refused(tmp_path / "x.pt", "bytearray")

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_a_bare_pickle_is_refused(self, protocol, tmp_path):
        made = tmp_path / "made"
        (tmp_path / "x.pt").write_bytes(pickle.dumps(RunsCode(made), protocol))
        refused(tmp_path / "x.pt", "not what torch.save writes")
        assert not made.exists()

    def test_the_old_form_of_torch_is_refused(self, tmp_path):
        torch.save({"a": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
        refused(tmp_path / "x.pt", "since torch 1.6")

    def test_an_archive_that_unpacks_to_more_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", pickle.dumps({}))
            archive.writestr("x/data/0", bytes(10**6))
        refused(tmp_path / "x.pt", "unpack to more")

    def test_a_state_dict_of_a_real_module_is_read(self, tmp_path):
        folder = dictionary("AutoEncoder", LINEAR | {"bias": C})(tmp_path / "sae")
        module = torch.nn.Module()
        module.encoder = torch.nn.Linear(WIDTH, FEATURES)
        module.decoder = torch.nn.Linear(FEATURES, WIDTH, bias=False)
        module.bias = torch.nn.Parameter(torch.zeros(WIDTH))
        torch.save(module.bfloat16().state_dict(), folder / "ae.pt")
        assert open_sae(folder).features == FEATURES
        torch.save(OrderedDict(module.named_parameters()), folder / "ae.pt")
        assert open_sae(folder).features == FEATURES


class TestTensors:
    def test_a_tensor_that_repeats_one_number_is_refused(self, tmp_path):
        folder = dictionary("AutoEncoder", LINEAR | {"bias": C})(tmp_path / "sae")
        wide = torch.zeros(1).expand(10**6, 10**6)
        state = dict.fromkeys(("encoder.weight", "decoder.weight"), wide)
        torch.save(state | {"encoder.bias": wide[0], "bias": wide[0]}, folder / "ae.pt")
        refused(folder, "larger than the file")

    @pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
    def test_numbers_that_are_not_finite_are_refused(self, name, bad, folder):
        values = {key: np.array(each) for key, each in PLAIN.items()}
        values[name].flat[3] = bad
        save_file({key: np.ascontiguousarray(each) for key, each in values.items()},
                  folder / WEIGHTS)  # fmt: skip
        refused(folder, name, "not finite")

    @pytest.mark.parametrize("threshold", [np.nan, np.inf])
    def test_so_is_a_threshold(self, threshold, tmp_path):
        values = LINEAR | {"b_dec": C} | k_and(threshold)
        refused(dictionary("BatchTopKSAE", values)(tmp_path / "a"), "threshold")
        values = PLAIN | {"topk_threshold": np.array(threshold)}
        refused(lens("batchtopk", values)(tmp_path / "b"), "threshold")

    @pytest.mark.parametrize("k", [0, -1, FEATURES + 1, 2.5, True, "4", None, 10**30])
    def test_k_must_be_a_number_of_features(self, k, tmp_path):
        refused(lens("topk", PLAIN, k=k)(tmp_path / "a"), "k")
        refused(sparsify(k=k)(tmp_path / "b"), "k")
        values = LINEAR | {"b_dec": C, "k": torch.tensor(0 if k is None else 2.5)}
        refused(dictionary("AutoEncoderTopK", values)(tmp_path / "c"), "k")
        with pytest.raises(DataError, match="k = 0"):
            Sae(*(torch.from_numpy(array(each)) for each in PLAIN.values()), TopK(0))

    @pytest.mark.parametrize("kind", ["unknown", "missing", "shape", "turned", "flat", "whole"])
    def test_tensors_that_do_not_belong_are_refused(self, kind, folder):
        values = {name: array(each) for name, each in PLAIN.items()}
        changed = {
            "unknown": {"W_other": array(C)},
            "missing": {"W_enc": None},
            "shape": {"b_enc": array(C)},
            "turned": {"W_enc": values["W_enc"].T},
            "flat": {"W_dec": values["W_dec"].ravel()},
            "whole": {"W_enc": values["W_enc"].astype(np.int32)},
        }[kind]
        values = {name: each for name, each in (values | changed).items() if each is not None}
        values = {name: np.ascontiguousarray(each) for name, each in values.items()}
        save_file(values, folder / WEIGHTS)
        refused(folder)

    @pytest.mark.parametrize(("name", "value"), [("d_in", 13), ("d_sae", 10**12), ("d_in", None)])
    def test_a_configuration_must_have_the_numbers_of_the_tensors(self, name, value, tmp_path):
        refused(lens("standard", PLAIN, **{name: value})(tmp_path / "a"), name)

    def test_empty_tensors_are_refused_whatever_width_they_claim(self, tmp_path):
        inner = {name: np.zeros(3) for name in ("b_gate", "b_mag", "r_mag")}
        folder = lens("gated", inner | {"b_dec": np.zeros(3)})(tmp_path / "a")
        values = {name: array(each) for name, each in (inner | {"b_dec": np.zeros(3)}).items()}
        data = save(values | {"W_enc": np.zeros((0, 3), np.float32)})
        header, rest = header_of(data)
        header["W_enc"]["shape"] = [0, 10**13]
        header["W_dec"] = header["W_enc"] | {"shape": [10**13, 0]}
        (folder / WEIGHTS).write_bytes(with_header(header, rest))
        refused(folder, "is empty")


def header_of(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: object, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


class TestSafetensors:
    @pytest.mark.parametrize("kind", ["offsets", "shape", "huge", "overlap", "dtype", "deep",
                                      "long", "cut", "empty", "list", "text"])  # fmt: skip
    def test_a_header_that_lies_is_refused(self, kind, folder):
        data = (folder / WEIGHTS).read_bytes()
        header, rest = header_of(data)
        one = header["W_enc"]
        lies = {
            "offsets": {**header, "W_enc": {**one, "data_offsets": [0, 10**12]}},
            "shape": {**header, "W_enc": {**one, "shape": [10**6, 10**6]}},
            "huge": {**header, "W_enc": {**one, "shape": [2**62, 2**62]}},
            "overlap": {**header, "b_enc": header["b_dec"], "W_enc": header["W_dec"]},
            "dtype": {**header, "W_enc": {**one, "dtype": "F7"}},
            "deep": b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
            "list": [],
        }
        made = {
            "long": struct.pack("<Q", 2**63) + data[8:],
            "cut": data[:-5],
            "empty": b"",
            "text": b"hello",
        }
        content = made[kind] if kind in made else with_header(lies[kind], rest)
        (folder / WEIGHTS).write_bytes(content)
        refused(folder, "no safetensors file")

    def test_many_tensors_are_refused(self, folder):
        (folder / WEIGHTS).write_bytes(save({str(i): array(C) for i in range(100)}))
        refused(folder, "100 tensors")


class TestConfigurations:
    @pytest.mark.parametrize("content", [b"[]", b"3", b"", b"{", b"\xff\xfe", b"[" * 10**6, b"null",
                                         b'{"architecture": []}', b'{"metadata": 3}',
                                         b'{"a": ' + b"9" * 5000 + b"}"])  # fmt: skip
    def test_other_content_is_refused(self, content, folder):
        (folder / "cfg.json").write_bytes(content)
        refused(folder)
        dictionary("AutoEncoder", LINEAR | {"bias": C})(folder)
        (folder / "cfg.json").unlink()
        (folder / "config.json").write_bytes(content)
        refused(folder)

    def test_a_large_one_is_not_read(self, folder):
        with (folder / "cfg.json").open("wb") as file:
            file.truncate(10**9)
        refused(folder, "too large")

    @pytest.mark.parametrize("value", [[], "x", {"format": 2}, {"format": 1, "column": 3}])
    def test_our_own_record_is_checked(self, value, tmp_path):
        metadata = {"sae_lens_version": "6.0.0", "vlmlens": value}
        refused(lens("standard", PLAIN, metadata=metadata)(tmp_path / "a"), "metadata.vlmlens")

    @pytest.mark.parametrize("scales", [3, {"a": 1}, {"a": [1]}, {"a": ["1", 2]}, {"a": [1, None]}])
    def test_so_are_its_scales(self, scales, folder):
        save_sae(folder, open_sae(folder))
        config = json.loads((folder / "cfg.json").read_text())
        config["metadata"]["vlmlens"]["scales"] = scales
        (folder / "cfg.json").write_text(json.dumps(config))
        refused(folder, "scales")

    @pytest.mark.parametrize("factor", ["2", [], True, 0, -1, float("nan")])
    def test_a_factor_of_the_rows_must_be_a_number(self, factor, tmp_path):
        way = {"normalize_activations": "expected_average_only_in"}
        refused(lens("standard", PLAIN, factor, **way)(tmp_path / "a"), "scaling_factor")

    def test_control_characters_are_not_repeated(self, tmp_path):
        text = refused(lens("\x1b[31mred", PLAIN)(tmp_path / "a"))
        assert "\x1b" not in text

    @pytest.mark.parametrize("line", [b"{", b"{" * 10**6, b'{"schema": 5}\n', b'{"schema": "5"}\n',
                                      b'{"a":1}\nPK\x03\x04', b'{"d_vit": 12}\n'])  # fmt: skip
    def test_the_first_line_of_saev_is_checked(self, line, tmp_path):
        (tmp_path / "sae.pt").write_bytes(line)
        refused(tmp_path / "sae.pt")


class TestPaths:
    @pytest.mark.parametrize("name", ["cfg.json", WEIGHTS])
    def test_a_link_that_leaves_the_folder_is_refused(self, name, folder, tmp_path):
        (folder / name).rename(tmp_path / "outside")
        (folder / name).symlink_to(tmp_path / "outside")
        refused(folder, name, "leaves the folder")

    def test_a_link_inside_the_folder_is_followed(self, folder):
        (folder / "cfg.json").rename(folder / "other.json")
        (folder / "cfg.json").symlink_to("other.json")
        assert open_sae(folder).features == FEATURES

    def test_the_cache_of_the_hub_is_read_and_nothing_beside_it(self, folder, tmp_path):
        commit = tmp_path / "models--a--b" / "snapshots" / "c0ffee" / "layer"
        commit.mkdir(parents=True)
        (tmp_path / "models--a--b" / "blobs").mkdir()
        for number, name in enumerate(("cfg.json", WEIGHTS)):
            (folder / name).rename(tmp_path / "models--a--b" / "blobs" / str(number))
            (commit / name).symlink_to(f"../../../blobs/{number}")
        assert open_sae(commit).features == FEATURES
        (tmp_path / "models--a--b" / "blobs" / "0").rename(tmp_path / "models--a--b" / "0")
        (commit / "cfg.json").unlink()
        (commit / "cfg.json").symlink_to("../../../0")
        refused(commit, "leaves the folder")

    def test_what_is_no_file_does_not_block(self, folder):
        (folder / "cfg.json").unlink()
        os.mkfifo(folder / "cfg.json")
        refused(folder, "cfg.json")
        (folder / "cfg.json").unlink()
        (folder / "cfg.json").mkdir()
        refused(folder, "cfg.json")

    @pytest.mark.parametrize("name", ["", "nothing", "x" * 300, "a\0b", "sae/../../nothing"])
    def test_where_nothing_is_that_is_said(self, name, tmp_path):
        path = tmp_path / name if name else tmp_path / "empty"
        with pytest.raises(DataNotFound, match="no file or folder"):
            open_sae(path)

    def test_an_empty_folder_names_the_formats(self, tmp_path):
        refused(tmp_path, "no known format", "sae-lens, sparsify")

    def test_rates_are_checked(self, folder):
        assert sparsity_of(folder) is None
        save_file({"sparsity": array(np.full(3, np.nan))}, folder / "sparsity.safetensors")
        with pytest.raises(DataError, match="no rates"):
            sparsity_of(folder)


def test_a_few_damaged_bytes_never_surprise(tmp_path):
    """Cut and flipped files are read, or refused as what they are; nothing else is raised."""
    rng, outcomes = np.random.default_rng(3), []
    writers = (lens("standard", PLAIN), saev(5, "Relu"), dictionary("AutoEncoder", LINEAR))
    for number in range(60):
        path = writers[number % 3](tmp_path / str(number))
        files = sorted(path.iterdir() if path.is_dir() else [path], key=lambda one: one.name)
        file = files[number // 3 % len(files)]
        data = bytearray(file.read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(data if number % 5 else data[: int(rng.integers(len(data)))])
        with suppress(DataError):
            outcomes.append(open_sae(path).features)
    assert set(outcomes) == {FEATURES}
    assert len(outcomes) < 60
