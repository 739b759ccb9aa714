"""The configuration: defaults, files, environment, secrets, and errors of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from pacsbridge.config import Config, ConfigError, load_config

EXAMPLE = Path(__file__).parent.parent / "config.example.yaml"


def plain(value: Any) -> Any:
    """Turn a configuration into what its YAML file would hold."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def test_the_example_holds_every_key_with_its_default() -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    defaults = plain(Config())
    for section in ("media", "google"):
        for key in ("spool_dir", "credentials_path"):
            if key in example[section]:
                example[section][key] = str(Path(example[section][key]))
    assert example == defaults


def test_the_example_loads() -> None:
    assert load_config(EXAMPLE, {}) == Config()


def test_values_come_from_file_then_environment(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("pacs: {host: from-file, port: 104}\nserver:\n")
    config = load_config(
        file, {"PACSBRIDGE__PACS__HOST": "from-environment", "PACSBRIDGE_CONFIG": "/nowhere"}
    )
    assert (config.pacs.host, config.pacs.port) == ("from-environment", 104)


@pytest.mark.parametrize(
    ("name", "text", "section", "key", "value"),
    [
        ("PACSBRIDGE__SERVER__PORT", "9000", "server", "port", 9000),
        ("PACSBRIDGE__MEDIA__KEEP_MINUTES", "0.5", "media", "keep_minutes", 0.5),
        ("PACSBRIDGE__MEDIA__ALLOW_PARTIAL", "true", "media", "allow_partial", True),
        ("PACSBRIDGE__SERVER__LOG_LEVEL", "debug", "server", "log_level", "debug"),
        ("PACSBRIDGE__DICOMWEB__UPSTREAM", "off", "dicomweb", "upstream", "off"),
        ("PACSBRIDGE__SERVER__ALLOWED_ORIGINS", "[]", "server", "allowed_origins", ()),
        ("PACSBRIDGE__MEDIA__SPOOL_DIR", "/data", "media", "spool_dir", Path("/data")),
        ("PACSBRIDGE__PUBLISHER__HOST", "10.1", "publisher", "host", "10.1"),
    ],
)
def test_environment_values_have_the_type_of_their_key(
    name: str,
    text: str,
    section: str,
    key: str,
    value: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert getattr(getattr(load_config(None, {name: text}), section), key) == value


def test_a_secret_comes_from_a_file_and_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("s3cret\n")
    environ = {"PACSBRIDGE__AUTH__API_KEY_FILE": str(tmp_path / "key"), "PACSBRIDGE__AUTH__ENABLED": "true"}
    config = load_config(None, environ)
    assert config.auth.api_key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pacs: {hots: x}", "pacs.hots: unknown key"),
        ("pax: {}", "pax: unknown key"),
        ("server: {port: eighty}", "server.port:"),
        ("server: {port: '8080'}", "server.port:"),
        ("server: {port: true}", "server.port:"),
        ("server: {port: 70000}", "server.port:"),
        ("server: {legacy_php_routes: maybe}", "server.legacy_php_routes:"),
        ("server: {trusted_proxies: [somewhere]}", "server.trusted_proxies[0]: must be a network"),
        ("server: {public_url: localhost}", "server.public_url: must start with http"),
        ("pacs: {ae_title: ''}", "pacs.ae_title: must be an AE title"),
        ("pacs: {ae_title: SEVENTEEN_LETTERS}", "pacs.ae_title: must be an AE title"),
        ("storage_scp: {ports: []}", "storage_scp.ports:"),
        ("storage_scp: {ports: [{port: 1, ae_title: A}, {port: 1, ae_title: B}]}", "same port twice: 1"),
        ("storage_scp: {ports: [{port: 1, ae_title: A}, {port: 2, ae_title: A}]}", "same ae_title twice: A"),
        ("storage_scp: {ports: [{port: 1}]}", "storage_scp.ports[0].ae_title: field required"),
        ("media: {profile: DVD}", "media.profile:"),
        ("auth: {enabled: true}", "auth: enabled needs an api_key"),
        ("auth: {api_key_file: /nowhere/key}", "auth.api_key_file: can't read /nowhere/key"),
        ("patient_api: {path: '/{mrn}'}", "patient_api.path: may only contain {accession_number}"),
        (
            "accounts: {static_users: [{email: a, role: king, password_hash: x}]}",
            "accounts.static_users[0].role:",
        ),
        ("- a\n- b", "must hold sections"),
        ("a: [", "is not valid YAML in line 1"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_path(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_environment_key_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"pacs\.hots: unknown key"):
        load_config(None, {"PACSBRIDGE__PACS__HOTS": "x"})


@pytest.mark.parametrize("environ", [{}, {"PACSBRIDGE_CONFIG": "missing.yaml"}])
def test_a_named_file_must_exist(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"missing\.yaml: there is no such file"):
        load_config(None if environ else "missing.yaml", environ)
    assert load_config(None, {}) == Config()
