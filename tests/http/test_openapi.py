"""The API's description: it is OpenAPI, it tells all that the application answers, and nothing else."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from jsonschema import Draft202012Validator

from pacsbridge import __version__, errors
from pacsbridge.accounts.shortlinks import DEFAULT_HOURS, MAXIMUM_HOURS
from pacsbridge.accounts.values import Role
from pacsbridge.app import make_app
from pacsbridge.config import Config
from pacsbridge.http import middleware, passing
from pacsbridge.http.openapi import read, resolve
from pacsbridge.http.services import Services
from pacsbridge.jobs.job import Kind, Stage, State
from tests.accounts.examples import add
from tests.http.description import endpoints, problems, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiohttp import web

    from tests.http.desk import Desk

#: Whatever an OpenAPI 3.1 document may have in these places; more is a mistake in writing.
KEYS = {
    "document": {"openapi", "info", "servers", "tags", "paths", "components", "x-error-codes"},
    "path": {"parameters", "get", "post", "put", "patch", "delete"},
    "operation": {
        "operationId", "tags", "summary", "description", "security", "parameters", "requestBody", "responses",
        "x-errors", "x-curl",
    },
    "parameter": {"name", "in", "required", "description", "schema", "example", "x-variable"},
    "response": {"description", "headers", "content"},
    "content": {"schema", "example"},
}  # fmt: skip


def make_everything(folder: Path, **server: Any) -> web.Application:
    """Make the application with every feature that has addresses of its own; it is not run."""
    nothing = cast("Any", None)
    (folder / "index.html").write_text("<!doctype html>")
    config = Config.model_validate({"server": server, "dicomweb": {"ohif_dir": str(folder)}})
    return make_app(Services(config=config, works=nothing, patients=nothing, checks=nothing))


def routes(app: web.Application) -> set[tuple[str, str]]:
    """Give method and path of each route; HEAD goes with GET."""
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    return {(method, path) for method, path in found if method != "HEAD"}


def all_errors(root: type[errors.PacsbridgeError] = errors.PacsbridgeError) -> Iterator[tuple[str, int]]:
    yield root.code, root.status
    for each in root.__subclasses__():
        yield from all_errors(each)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_no_route_is_undescribed_and_nothing_is_described_that_is_not_there(tmp_path: Path) -> None:
    described = {(endpoint.method, endpoint.path) for endpoint in endpoints(whole())}
    there = routes(make_everything(tmp_path))
    # A route for any method is narrowed down by its handler.
    open_ended = {path for method, path in there if method == "*"}
    assert {path for _, path in described} >= open_ended
    assert {each for each in described if each[1] not in open_ended} == {
        each for each in there if each[1] not in open_ended
    }


def test_the_error_codes_are_those_of_the_service() -> None:
    known = dict(all_errors())
    known |= {code: status for status, code in middleware._CODES.items() if code not in known}
    known |= {code: status for status, (code, _) in passing._MESSAGES.items() if code not in known}
    known |= {"invalid_request": 400, "upstream_refused": "default"}  # type: ignore[dict-item]  # any status
    described = {code: each["status"] for code, each in whole()["x-error-codes"].items()}
    assert described == known


@pytest.mark.parametrize(
    ("schema", "field", "values"),
    [
        ("Job", "kind", Kind),
        ("Job", "state", State),
        ("Job", "stage", Stage),
        ("NewJob", "kind", Kind),
        ("Me", "role", Role),
    ],
)
def test_the_choices_are_those_of_the_code(schema: str, field: str, values: Any) -> None:
    document = whole()
    described = resolve(document, document["components"]["schemas"][schema]["properties"][field])
    assert described["enum"] == [each.value for each in values]


def test_the_hours_of_a_link_are_those_of_the_code() -> None:
    hours = whole()["components"]["schemas"]["NewShortLink"]["properties"]["expires_in_hours"]
    assert (hours["default"], hours["maximum"]) == (DEFAULT_HOURS, MAXIMUM_HOURS)


def test_it_is_made_of_what_openapi_knows() -> None:
    document = whole()
    assert document["openapi"] == "3.1.0"
    assert set(document) <= KEYS["document"]
    assert all(set(item) <= KEYS["path"] for item in document["paths"].values())
    for endpoint in endpoints(document):
        assert set(endpoint.operation) <= KEYS["operation"]
        for parameter in endpoint.parameters:
            assert set(parameter) <= KEYS["parameter"]
        for status, response in endpoint.operation["responses"].items():
            response = resolve(document, response)
            assert status == "default" or HTTPStatus(int(status))
            assert set(response) <= KEYS["response"]
            assert response["description"]
            for content in response.get("content", {}).values():
                assert set(content) <= KEYS["content"]


def test_every_reference_leads_somewhere() -> None:
    document = whole()
    for reference in set(references(document)):
        assert resolve(document, {"$ref": reference})


def test_every_schema_is_one_and_is_used() -> None:
    document = whole()
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    used = {reference.rpartition("/")[2] for reference in references(document)}
    for kind in ("schemas", "responses", "parameters", "headers"):
        assert set(document["components"][kind]) <= used


def test_the_parameters_of_a_path_are_those_in_its_braces() -> None:
    for endpoint in endpoints(whole()):
        named = {each["name"] for each in endpoint.parameters if each["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", endpoint.path))
        assert all(each["required"] for each in endpoint.parameters if each["in"] == "path")


def test_names_tags_and_schemes_are_known() -> None:
    document = whole()
    ids = [endpoint.operation["operationId"] for endpoint in endpoints(document)]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in document["tags"]}
    schemes = set(document["components"]["securitySchemes"])
    for endpoint in endpoints(document):
        assert set(endpoint.operation["tags"]) <= tags
        assert {name for each in endpoint.operation["security"] for name in each} <= schemes


def test_the_examples_are_as_described() -> None:
    document = whole()
    for endpoint in endpoints(document):
        if endpoint.body:
            assert not problems(document, endpoint.body["schema"], endpoint.body["example"])
        for parameter in endpoint.parameters:
            if "example" in parameter and parameter["schema"].get("type") != "integer":
                assert not problems(document, parameter["schema"], parameter["example"])


async def test_it_is_served_with_version_and_address(locked_desk: Desk) -> None:
    answer = await locked_desk.ask("GET", "/api/openapi.json")
    assert answer.status == 200
    assert answer.json["info"]["version"] == __version__
    assert answer.json["servers"] == [{"url": "http://localhost:8080"}]
    assert answer.json == whole(viewer=False)


async def test_what_is_open_is_described_as_open(desk: Desk, locked_desk: Desk) -> None:
    async def security(where: Desk, path: str) -> list[Mapping[str, Any]]:
        described: Any = (await where.ask("GET", "/api/openapi.json")).json["paths"][path]["get"]["security"]
        return cast("list[Mapping[str, Any]]", described)

    assert {} in await security(desk, "/api/jobs")
    assert {} not in await security(locked_desk, "/api/jobs")
    assert {} not in await security(desk, "/api/admin/users")


def test_the_documentation_names_the_same_paths_and_errors() -> None:
    document, text = whole(), (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<=[ `])(/(?:api/|auth/|s/|mkiso|send_)[\w./{}-]*)", text))
    assert named
    assert named <= set(document["paths"])
    rows = [re.findall(r"[^|]+", row) for row in text.partition("| status | code")[2].splitlines()[2:]]
    told = {code: row[0] for row in rows if row for code in re.findall(r"`(\w+)`", f"{row[1]} {row[2]}")}
    for code, error in document["x-error-codes"].items():
        assert error["status"] == "default" or str(error["status"]) in told[code], code


def test_what_is_switched_off_is_left_out(tmp_path: Path) -> None:
    paths = {path for _, path in routes(make_everything(tmp_path, legacy_php_routes=False))}
    assert set(read()["paths"]) - paths == {
        "/mkiso.php",
        "/mkiso2.php",
        "/mkiso_multiple.php",
        "/send_rimage_multiple.php",
    }


def at_the_limit(name: str, schema: Mapping[str, Any], length: int) -> Any:
    """Make a text of a length, or a list of one, that is right but for its length."""
    if "items" in schema:
        return [("1" if name == "study_iuids" else "A") * length]
    return (
        "a" * (length - 12) + "@example.org"
        if name == "email"
        else "aB3-" * (length // 4) + "x" * (length % 4)
    )


def limits() -> Iterator[tuple[str, str]]:
    for endpoint in endpoints(whole()):
        if endpoint.body and endpoint.operation["tags"] not in (["Jobs"], ["Pages"]):
            schema = resolve(whole(), endpoint.body["schema"])
            for name, each in schema["properties"].items():
                each = resolve(whole(), each)
                if "maxLength" in resolve(whole(), each.get("items", each)):
                    yield endpoint.operation["operationId"], name


@pytest.mark.parametrize(("operation", "name"), list(limits()))
async def test_the_limits_are_those_of_the_service(desk: Desk, operation: str, name: str) -> None:
    document = whole()
    endpoint = next(each for each in endpoints(document) if each.operation["operationId"] == operation)
    schema = resolve(document, resolve(document, endpoint.body["schema"])["properties"][name])
    longest = resolve(document, schema.get("items", schema))["maxLength"]
    admin = await desk.bearer("root@example.org", Role.ADMIN)
    user = await add(desk.accounts)
    answers = []
    for length in (longest, longest + 1):
        body = {**endpoint.body["example"], name: at_the_limit(name, schema, length)}
        path = endpoint.path.replace("{id}", user.id)
        answers.append((await desk.post(path, body, headers=admin)).status)
    assert answers[0] < 300
    assert answers[1] == 400
