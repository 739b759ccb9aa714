import json
import re
from pathlib import Path
from typing import Any

import yaml

from pacsbridge.config import Config, load_config

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"


def config() -> Config:
    return load_config(DOCKER / "config.yaml", environ={})


def compose(name: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())["services"]
    return services


def published(service: dict[str, Any]) -> dict[int, int]:
    """Give the ports inside → outside."""
    ports = [entry.rsplit(":", 2)[-2:] for entry in service.get("ports", ())]
    return {int(inside): int(outside) for outside, inside in ports}


def instructions() -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions, continued lines joined."""
    text = (DOCKER / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def given(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def test_orthanc_knows_every_port_of_the_pool_at_the_service() -> None:
    modalities = json.loads((DOCKER / "orthanc.json").read_text())["DicomModalities"].values()
    known = {(one["AET"], one["Host"], one["Port"]) for one in modalities}
    assert "pacsbridge" in compose("compose.yaml")  # the host name that Orthanc is given
    assert known == {(port.ae_title, "pacsbridge", port.port) for port in config().storage_scp.ports}


def test_the_service_knows_orthanc_and_may_ask_it() -> None:
    orthanc = json.loads((DOCKER / "orthanc.json").read_text())
    pacs = config().pacs
    assert (pacs.ae_title, pacs.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    assert pacs.host in compose("compose.yaml")
    assert pacs.calling_ae_title in orthanc["DicomModalities"]


def test_the_published_ports_are_those_that_are_listened_on() -> None:
    services = compose("compose.yaml")
    orthanc = json.loads((DOCKER / "orthanc.json").read_text())
    assert set(published(services["pacsbridge"])) == {config().server.port}
    assert set(published(services["orthanc"])) == {orthanc["HttpPort"], orthanc["DicomPort"]}
    assert config().server.public_url.endswith(str(published(services["pacsbridge"])[config().server.port]))


def test_nothing_is_published_beyond_this_machine() -> None:
    for service in compose("compose.yaml").values():
        assert all(entry.startswith("127.0.0.1:") for entry in service.get("ports", ()))


def test_every_file_that_compose_mounts_exists() -> None:
    for name in ("compose.yaml", "compose.test.yaml"):
        for service in compose(name).values():
            for volume in service.get("volumes", ()):
                source = volume.split(":")[0]
                assert not source.startswith(".") or (DOCKER / source).exists()
            if "build" in service:
                assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_container_exposes_and_keeps_what_the_configuration_uses() -> None:
    exposed = {int(port) for port in given("EXPOSE")[0].split()}
    assert exposed == {config().server.port, *(port.port for port in config().storage_scp.ports)}
    volumes = [Path(volume) for volume in json.loads(given("VOLUME")[0])]
    assert config().media.spool_dir in volumes
    url = config().database.url.get_secret_value()
    assert Path(url.removeprefix("sqlite:///")).parent in volumes
    mounted = compose("compose.yaml")["pacsbridge"]["volumes"][0].split(":")[1]
    assert json.loads(given("CMD")[0]) == ["serve", "--config", mounted]


def test_the_service_does_not_run_as_root() -> None:
    assert given("USER") == ["pacsbridge"]
    assert any("useradd" in step and "pacsbridge" in step for step in given("RUN"))


def test_what_the_container_copies_is_there_and_not_ignored() -> None:
    allowed = [
        line.removeprefix("!").strip()
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    sources = [source for step in given("COPY") if "--from" not in step for source in step.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in allowed)


def test_the_health_check_asks_for_health() -> None:
    (check,) = given("HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    assert command[0] == "python"
    assert "/api/health" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")
