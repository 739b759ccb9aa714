"""The configuration: one YAML file as typed, validated, frozen values.

Where a value comes from, the last one wins: the default written here, the YAML file, an environment
variable ``PACSBRIDGE__SECTION__KEY``. A secret ``x`` can come from a file that ``x_file`` names, as container
secrets do.
"""

from __future__ import annotations

import ipaddress
import json
import os
import string
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX = "PACSBRIDGE__"
ENV_SEPARATOR = "__"
FILE_SUFFIX = "_file"


class ConfigError(Exception):
    """The configuration can't be used; the message is one line that names the key's path."""


def _ae_title(value: str) -> str:
    """Check an AE title (PS3.5 6.2, VR AE): 1 to 16 printable ASCII characters, no backslash."""
    stripped = value.strip()
    printable = stripped.isascii() and stripped.isprintable()
    if not 1 <= len(stripped) <= 16 or "\\" in stripped or not printable:
        raise ValueError("must be an AE title: 1 to 16 ASCII characters, no backslash")
    return stripped


def _cidr(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8, or an address") from None
    return value


def _template(*names: str) -> AfterValidator:
    """Check that a text with ``{placeholders}`` uses the given ones only."""

    def check(value: str) -> str:
        try:
            used = {field for _, field, _, _ in string.Formatter().parse(value) if field is not None}
        except ValueError as error:
            raise ValueError(f"is not a valid template: {error}") from None
        if not used <= set(names):
            known = ", ".join(f"{{{name}}}" for name in names)
            raise ValueError(f"may only contain {known}")
        return value

    return AfterValidator(check)


def _http_url(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value.rstrip("/")


def _public_path(value: str) -> str:
    if not value.startswith("/") or not value.strip("/") or "//" in value or "?" in value:
        raise ValueError("must be a path below /dicomWeb, such as /studies/1.2.3")
    return value


def _file(value: str) -> str:
    if value and not Path(value).is_file():
        raise ValueError(f"names no file: {value}")
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_cidr)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
FileName = Annotated[str, AfterValidator(_file)]
PublicPath = Annotated[str, AfterValidator(_public_path)]
Role = Literal["patient", "doctor", "staff", "admin"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ServerConfig(Section):
    """The HTTP server."""

    host: str = "0.0.0.0"  # noqa: S104 - the contract's default: a service in a hospital's network
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    public_url: HttpUrl = "http://localhost:8080"
    read_timeout_seconds: Seconds = 30
    write_timeout_seconds: Seconds = 30
    idle_timeout_seconds: Seconds = 60
    shutdown_timeout_seconds: Annotated[float, Field(ge=0)] = 30
    trusted_proxies: tuple[Network, ...] = ()
    allowed_origins: tuple[str, ...] = ("http://localhost:3000",)
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    legacy_php_routes: bool = True


class TlsConfig(Section):
    """TLS for DICOM, as both sides of a connection have it; the files are PEM."""

    enabled: bool = False
    certificate_path: FileName = ""
    key_path: FileName = ""
    ca_path: FileName = ""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.certificate_path) != bool(self.key_path):
            raise ValueError("certificate_path and key_path need each other")
        return self


class ClientTlsConfig(TlsConfig):
    """TLS to a peer that we ask for associations."""

    check_host_name: bool = True


class ServerTlsConfig(TlsConfig):
    """TLS on the ports of the Storage SCP."""

    @model_validator(mode="after")
    def _certificate(self) -> Self:
        if self.enabled and not self.certificate_path:
            raise ValueError("enabled needs certificate_path and key_path")
        return self


class PacsConfig(Section):
    """The archive that is asked for studies."""

    ae_title: AETitle = "ABPACS"
    host: str = "127.0.0.1"
    port: Port = 11112
    calling_ae_title: AETitle = "CDRECORD"
    connect_timeout_seconds: Seconds = 10
    response_timeout_seconds: Seconds = 60
    associations: Annotated[int, Field(ge=1, le=16)] = 3
    tls: ClientTlsConfig = ClientTlsConfig()


class ScpPort(Section):
    """One port of the pool: a move destination that the PACS knows under this AE title."""

    port: Port
    ae_title: AETitle


class StorageScpConfig(Section):
    """The embedded Storage SCP and its pool of ports."""

    host: str = "0.0.0.0"  # noqa: S104 - the PACS connects from elsewhere
    ports: Annotated[tuple[ScpPort, ...], Field(min_length=1)] = (
        ScpPort(port=10104, ae_title="CDRECORD"),
        ScpPort(port=10105, ae_title="CDRECORD2"),
    )
    allowed_peers: tuple[Network, ...] = ()
    queue_length: Annotated[int, Field(ge=0)] = 50
    tls: ServerTlsConfig = ServerTlsConfig()

    @field_validator("ports")
    @classmethod
    def _unique(cls, ports: tuple[ScpPort, ...]) -> tuple[ScpPort, ...]:
        for what, values in (
            ("port", [str(entry.port) for entry in ports]),
            ("ae_title", [entry.ae_title for entry in ports]),
        ):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"names the same {what} twice: {', '.join(sorted(twice))}")
        return ports


class DimseConfig(Section):
    """How DICOM is spoken: with everybody alike."""

    fast: bool = True


class MediaConfig(Section):
    """The spool and the disc."""

    spool_dir: Path = Path("./spool")
    spool_max_bytes: Annotated[int, Field(gt=0)] = 50_000_000_000
    keep_minutes: Annotated[float, Field(ge=0)] = 30
    profile: Literal["STD-GEN-CD", "as-stored"] = "STD-GEN-CD"
    capacity_bytes: Annotated[int, Field(ge=0)] = 700_000_000
    viewer_dir: str = ""
    institution: str = ""
    allow_mixed_patients: bool = False
    allow_partial: bool = False


class PublisherConfig(Section):
    """The CD publisher that prints are sent to."""

    ae_title: AETitle = "RIMAGE"
    host: str = ""
    port: Port = 104
    connect_timeout_seconds: Seconds = 10
    response_timeout_seconds: Seconds = 60
    tls: ClientTlsConfig = ClientTlsConfig()


class PatientFields(Section):
    """Where in the patient-data API's answer each value is: dotted paths."""

    patient_id: str = "patient_id"
    name: str = "name"
    birth_date: str = "birth_date"
    sex: str = "sex"


class PatientApiConfig(Section):
    """The HIS's patient-data API."""

    base_url: HttpUrl = ""
    path: Annotated[str, _template("accession_number")] = "/patients?accession_number={accession_number}"
    api_key: SecretStr = SecretStr("")
    timeout_seconds: Seconds = 5
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    fields: PatientFields = PatientFields()


class AuthConfig(Section):
    """The API key of the disc endpoints."""

    enabled: bool = False
    api_key: SecretStr = SecretStr("")
    link_secret: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _key_present(self) -> AuthConfig:
        if self.enabled and not self.api_key.get_secret_value():
            raise ValueError("enabled needs an api_key (or api_key_file)")
        return self


class DatabaseConfig(Section):
    """Where jobs, accounts and short links are kept."""

    url: SecretStr = SecretStr("sqlite:///./pacsbridge.db")
    keep_jobs_days: Annotated[float, Field(gt=0)] = 30


class StaticUser(Section):
    """An account that lives in the configuration."""

    email: str
    password_hash: SecretStr
    role: Role
    study_iuids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    ref_doctor: str = ""


class AccountsConfig(Section):
    """Accounts and tokens."""

    jwt_secret: SecretStr = SecretStr("")
    access_token_minutes: Annotated[float, Field(gt=0)] = 15
    refresh_token_days: Annotated[float, Field(gt=0)] = 7
    registration: Literal["closed", "patients"] = "closed"
    static_users: tuple[StaticUser, ...] = ()


class DicomwebConfig(Section):
    """The DICOMweb proxy."""

    upstream: Literal["off", "google", "dicomweb"] = "off"
    url: HttpUrl = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    read_timeout_seconds: Seconds = 60
    public_paths: tuple[PublicPath, ...] = ()
    doctor_scope: Literal["all", "referred"] = "all"
    store_roles: tuple[Role, ...] = ()
    delete_roles: tuple[Role, ...] = ()
    viewer_url: Annotated[str, _template("study_iuids")] = "/viewer?StudyInstanceUIDs={study_iuids}"
    ohif_dir: str = ""


class GoogleConfig(Section):
    """The DICOM store of the Google Cloud Healthcare API."""

    project_id: str = ""
    location: str = ""
    dataset: str = ""
    dicom_store: str = ""
    credentials_path: Path = Path("./credentials/service-account.json")
    base_url: HttpUrl = "https://healthcare.googleapis.com/v1"


class Config(Section):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    pacs: PacsConfig = PacsConfig()
    storage_scp: StorageScpConfig = StorageScpConfig()
    dimse: DimseConfig = DimseConfig()
    media: MediaConfig = MediaConfig()
    publisher: PublisherConfig = PublisherConfig()
    patient_api: PatientApiConfig = PatientApiConfig()
    auth: AuthConfig = AuthConfig()
    database: DatabaseConfig = DatabaseConfig()
    accounts: AccountsConfig = AccountsConfig()
    dicomweb: DicomwebConfig = DicomwebConfig()
    google: GoogleConfig = GoogleConfig()


def load_config(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration.

    Parameters
    ----------
    path
        The YAML file; else ``PACSBRIDGE_CONFIG``, else ``./config.yaml`` (which may be absent: then the
        defaults and the environment make the configuration).
    environ
        The environment; the process's own by default.

    Raises
    ------
    ConfigError
        One line that names the key's path and what is wrong with it.
    """
    environ = os.environ if environ is None else environ
    named = path or environ.get("PACSBRIDGE_CONFIG")
    source = Path(named) if named else Path("config.yaml")
    data = _read_yaml(source, must_exist=bool(named))
    _overlay_environment(data, environ)
    _read_secret_files(data, Config)
    try:
        text = json.dumps(data, default=str)
        return Config.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(_first_line(error)) from None


def _read_yaml(source: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"{source}: there is no such file; copy config.example.yaml") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: can't be read: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}: is not valid YAML{where}: {getattr(error, 'problem', error)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must hold sections such as 'server:' and 'pacs:'")
    return {str(key): {} if value is None else value for key, value in data.items()}


def _overlay_environment(data: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            keys = name.removeprefix(ENV_PREFIX).lower().split(ENV_SEPARATOR)
            _set(data, keys, environ[name], name)


def _set(data: dict[str, Any], keys: list[str], text: str, name: str) -> None:
    section: Any = data
    model: Any = Config
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        model = _field_type(model, key)
        if not isinstance(section, dict):
            raise ConfigError(f"{name}: {key} is not a section")
    section[keys[-1]] = _value(text, _field_type(model, keys[-1]), name)


def _field_type(model: Any, key: str) -> Any:
    fields = getattr(model, "model_fields", {})
    return fields[key].annotation if key in fields else None


def _value(text: str, annotation: Any, name: str) -> Any:
    """Turn the text of an environment variable into what the field holds: lists and numbers are YAML."""
    if annotation in (str, SecretStr, Path, None):
        return text
    if get_args(annotation) and all(isinstance(choice, str) for choice in get_args(annotation)):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name}: is not valid YAML") from None


def _read_secret_files(data: dict[str, Any], model: type[BaseModel], path: str = "") -> None:
    """Replace each ``x_file`` of a secret ``x`` by what the file holds."""
    for name, field in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(data.get(name), dict):
            _read_secret_files(data[name], inner, here)
        elif inner is SecretStr and name + FILE_SUFFIX in data:
            file = data.pop(name + FILE_SUFFIX)
            if not file:
                continue
            if data.get(name):
                raise ConfigError(f"{here}{FILE_SUFFIX}: give {here} or {here}{FILE_SUFFIX}, not both")
            try:
                data[name] = Path(str(file)).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise ConfigError(f"{here}{FILE_SUFFIX}: can't read {file}: {reason}") from None


def _first_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=True)
    first = problems[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    if first["type"] == "extra_forbidden":
        what = "unknown key"
    else:
        what = first["msg"].removeprefix("Value error, ")
        what = what[0].lower() + what[1:]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path or 'configuration'}: {what}{more}"
