"""Credentials reach no file and no message, however they are given."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vlmlens._clean import has_credential, redacted
from vlmlens.cli._app import app
from vlmlens.cli._options import SpecFlags
from vlmlens.errors import SpecError
from vlmlens.runs.run import Run
from vlmlens.spec.model import make_spec

SECRET = "hunter2hunter2"
ASSIGNMENTS = [
    f"options.storage.remote={{secret: {SECRET}}}",
    f"options.storage.remote.secret={SECRET}",
    f"options.storage.remote.key={SECRET}",
    f"options.storage.remote.token={SECRET}",
    f"options.storage.remote.client_kwargs.aws_secret_access_key={SECRET}",
    f"options.storage.remote.client_kwargs={{headers: {{Authorization: Bearer {SECRET}}}}}",
    f"options.storage.remote.s3={{nested: [{{Password: {SECRET}}}]}}",
    f"options.storage.remote.account_key={SECRET}",
    f"options.storage.remote.sas_token={SECRET}",
    f"options.storage.remote.connection_string={SECRET}",
    f"options.storage.remote.endpoint_url=https://me:{SECRET}@host/",
    f"options.storage.remote={{secret: {SECRET}",
    f"options.storage.remote={{other: {SECRET}",
    f"storage=zarr+s3://me:{SECRET}@host/x",
    f"storage=zarr+https://host/x?sig={SECRET}",
    f"storage=zarr+https://host/x?a=1&X-Amz-Signature={SECRET}",
    f"data=https://me:{SECRET}@host/x.jsonl",
    f"model=https://me:{SECRET}@host/org/m",
    f"out=sftp://me:{SECRET}/@host/x",
    f"options.adapter.api_key={SECRET}",
    f"options.plugins.run-log.password={SECRET}",
    f"analysis.probe.auth_token={SECRET}",
    f"seed=hf_{SECRET}{SECRET}",
    f"options.adapter.x=hf_{SECRET}{SECRET}",
    f"options.storage.remote.wrong.hf_{SECRET}{SECRET}=1",
    f"limit=s3://me:{SECRET}@host",
]


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_what_is_set_is_refused_and_not_repeated(
    assignment: str, json: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["estimate", "--set", assignment, "--debug", *json])
    assert done.exit_code == 2, done.output
    assert SECRET not in done.output + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values",
    [
        {"options": {"storage": {"remote": {"token": "anon", "anon": True, "key": None}}}},
        {"options": {"storage": {"remote": {"endpoint_url": "http://localhost:9000/a@b"}}}},
        {"storage": "zarr+s3://bucket/x", "data": "rows:file@2.csv", "model": "org/name"},
        {"prompt": ["What is the secret: a password or a token?"], "sites": ["llm.block.*/last"]},
        {"analysis": {"probe": {"targets": ["secret", "token"]}, "x": {"max_tokens": 3}}},
        {"options": {"adapter": {"image_token": "<image>", "grid_token": "g"}}},
        {"storage": "zarr+sftp://me@host:22/x"},
        {"storage": "zarr+http://[::1]:9000/a@b"},
    ],
    ids=str,
)
def test_what_is_no_credential_is_taken(values: dict[str, Any]) -> None:
    assert make_spec(values)


def test_a_run_file_with_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"options: {{storage: {{remote: {{key: AK, secret: {SECRET}}}}}}}")
    with pytest.raises(SpecError, match=r"options\.storage\.remote\.key.*FSSPEC") as caught:
        SpecFlags({}, str(file), ()).spec()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("command", ["show", "verify", "analyze", "export", "import"])
def test_a_uri_with_a_password_is_neither_opened_nor_repeated(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"zarr+sftp://me:{SECRET}@127.0.0.1:9/x"
    more = [str(tmp_path / "new.zarr")] if command in ("export", "import") else []
    done = CliRunner().invoke(app, [command, uri, *more])
    assert done.exit_code == 2, done.output
    assert SECRET not in done.output + done.stderr
    assert "credential" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "s3://me:{}@host/x",
        "cannot open zarr+s3://me:{}@host: denied",
        "GET https://h/x?X-Amz-Credential=a&X-Amz-Signature={}&y=1",
        "https://account.blob/x?sv=1&sig={}",
        "{{'secret': '{}'}}",
        "aws_secret_access_key={}",
        "Authorization: {}",
        "password = {}",
        "hf_{}abcdefgh",
    ],
)
def test_messages_are_redacted(text: str) -> None:
    assert SECRET not in redacted(text.format(SECRET))


def test_plain_messages_stay() -> None:
    for text in ("No secret here: 'a@b' at http://h:80/x@y", "max_tokens=3, key of the row"):
        assert redacted(text) == text
        assert not has_credential(text)


@pytest.mark.parametrize("text", ["password" * 50_000, "s3://a:" * 50_000, "?key" * 80_000])
def test_long_texts_take_no_long_time(text: str) -> None:
    import time

    start = time.process_time()
    redacted(text)
    assert time.process_time() - start < 5


def test_a_run_with_a_remote_store_is_for_its_user_alone(tmp_path: Path) -> None:
    remote = make_spec({"storage": "zarr+s3://bucket/x"})
    run = Run.create(tmp_path / "remote", remote, {})
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    plain = Run.create(tmp_path / "plain", make_spec({}), {})
    assert stat.S_IMODE(plain.path.stat().st_mode) != 0o700
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "mine" / "thesis.tex").touch()
    own = Run.create(tmp_path / "mine", remote, {})
    assert stat.S_IMODE(own.path.stat().st_mode) == 0o755
