"""The server by HTTP: its answers, what it refuses and in which words."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from importlib import resources

import jsonschema
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

import contrique_jax
from contrique_jax.errors import UserError, run_verb
from contrique_jax.inference.extractor import Extractor
from contrique_jax.networks.model_folder import load_model
from contrique_jax.probe import FULL_REFERENCE, load_probe
from contrique_jax.probe.standing import Standing
from contrique_jax.serve import main as serve
from contrique_jax.serving.app import PAGE, make_app
from contrique_jax.serving.engine import Engine
from contrique_jax.serving.limits import Limits
from contrique_jax.serving.openapi import document
from contrique_jax.serving.server import listen
from contrique_jax.serving.service import Service
from tests.planted import probe_of, tiny_model

LIMITS = Limits(files=3, file_megabytes=0.1, request_megabytes=0.25, image_megapixels=0.05, queue=4)
TOKEN = "a-word-for-tests"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """model/ and its probe; a.png and b.png of 64 x 48, and their bytes."""
    folder = tmp_path_factory.mktemp("serve")
    tiny_model(folder / "model")
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    probe = probe_of(Extractor(*load_model(folder / "model")), rng)
    probe = dataclasses.replace(
        probe, coefficients=probe.coefficients / 30, standing=Standing.of(np.linspace(1, 5, 50))
    )
    probe.save(folder / "probe.npz")
    return folder


@pytest.fixture(scope="module")
def service(place):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CONTRIQUE_CACHE", "off")
        engine = Engine(str(place / "model"), str(place / "probe.npz"), max_megapixels=1, memory=1)
    return Service(engine, LIMITS, decoders=1)


@pytest.fixture(scope="module")
def client(service):
    with TestClient(make_app(service, warm=False), base_url="http://localhost") as client:
        yield client


def form(place, *names):
    return [("image", (name, (place / name).read_bytes())) for name in names]


def check(answer, schema):
    """An answer is what the OpenAPI document says of it."""
    whole = document(LIMITS, False)
    jsonschema.validate(answer, {"$ref": f"#/components/schemas/{schema}", "components": whole["components"]})


def said(response, status):
    """The sentence of a refusal."""
    assert response.status_code == status, response.text
    check(response.json(), "Error")
    return response.json()["error"]


def test_a_form_s_files_get_the_scores_of_the_library(client, place):
    response = client.post("/v1/score", files=form(place, "a.png", "b.png"))
    check(response.json(), "Results")
    results = response.json()["results"]
    meter = contrique_jax.load(place / "model", probe=place / "probe.npz")
    expected = meter.score([str(place / "a.png"), str(place / "b.png")])
    np.testing.assert_allclose([one["score"] for one in results], expected, atol=2e-3)
    assert [one["name"] for one in results] == ["a.png", "b.png"]
    for one in results:
        assert one["interval"][0] <= one["score"] <= one["interval"][1] and (one["width"], one["height"]) == (64, 48)
        assert one["better_than"] == pytest.approx((one["score"] - 1) / 4, abs=0.02)
        assert one["word"] == ("bad", "poor", "fair", "good", "excellent")[int((one["score"] - 1) / 4 * 5)]


def test_a_body_is_an_image_with_map_and_thumbnail(client, place):
    query = {"map": "true", "thumbnail": "yes", "name": "..\\..\\etc/pass\x07wd"}
    response = client.post("/v1/score", params=query, content=(place / "a.png").read_bytes())
    check(response.json(), "Results")
    (one,) = response.json()["results"]
    assert np.shape(one["map"]) == (13, 13) and np.mean(one["map"]) == pytest.approx(one["score"], abs=1e-3)
    assert one["name"] == "pass\\x07wd"
    head, _, data = one["thumbnail"].partition(",")
    assert head == "data:image/jpeg;base64" and Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 48)


def test_a_broken_file_has_its_error_in_its_place(client, place):
    files = form(place, "a.png", "b.png")
    files.insert(1, ("image", ("cut.png", files[0][1][1][:200])))
    first, broken, last = client.post("/v1/score", files=files).json()["results"]
    assert "score" in first and "score" in last and broken == {"name": "cut.png", "error": broken["error"]}
    assert "cut off" in broken["error"]
    alone = client.post("/v1/score", files=[files[1]])
    check(alone.json(), "Results")
    assert alone.status_code == 422


def test_limits_on_one_image_are_beside_it(client):
    large, many = io.BytesIO(), io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").resize((300, 150)).save(large, "BMP")
    Image.new("L", (250, 250)).save(many, "PNG")
    files = [("image", ("large.bmp", large.getvalue())), ("image", ("many.png", many.getvalue()))]
    first, second = client.post("/v1/score", files=files).json()["results"]
    assert "MB" in first["error"] and "more than the limit of 50000" in second["error"]


@pytest.mark.parametrize(
    ("status", "words", "request_of"),
    [
        (415, "application/json is not taken", {"json": {"path": "/etc/passwd"}}),
        (400, "no body", {"content": b""}),
        (400, "holds no file", {"data": {"path": "/etc/passwd"}, "files": {"": (None, "x")}}),
        (400, "boundary", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
        (400, "cannot be read", {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}}),
        (413, "more than 3 files", {"files": [("i", (f"{i}.png", b"x")) for i in range(4)]}),
        (413, "more than 0.25 MB", {"content": bytes(300_000)}),
        (413, "more than 0.25 MB", {"content": iter([bytes(200_000), bytes(200_000)])}),
        (431, "larger than 16384 bytes", {"content": b"x", "headers": {"X": "y" * 20_000}}),
        (431, "larger than 16384 bytes", {"content": b"x", "params": {"name": "y" * 20_000}}),
        (400, "map=maybe", {"params": {"map": "maybe"}, "content": b"x"}),
    ],
)  # fmt: skip
def test_what_is_no_upload_is_refused_in_one_sentence(client, status, words, request_of):
    assert words in said(client.post("/v1/score", **request_of), status)


def test_other_addresses_and_methods(client):
    assert "nothing at this address" in said(client.get("/../etc/passwd"), 404)
    assert "method" in said(client.get("/v1/score"), 405)


def test_a_full_queue_says_when_to_come_again(client, service, place):
    service.waiting += LIMITS.queue
    try:
        response = client.post("/v1/score", files=form(place, "a.png"))
    finally:
        service.waiting -= LIMITS.queue
    assert "4 images are waiting" in said(response, 429) and int(response.headers["Retry-After"]) >= 1
    assert client.get("/healthz").json() == {"status": "ok", "waiting": 0}


def test_the_model_and_where_its_photographs_stand(client):
    about = client.get("/v1/model").json()
    check(about, "Model")
    assert about["range"] == [1, 5] and about["limits"]["queue"] == 4 and about["maps"]
    assert sum(about["histogram"]["shares"]) == pytest.approx(1, abs=1e-3) and about["histogram"]["photographs"] == 50


def test_counters_for_prometheus(client, place):
    def count(name, **labels):
        families = text_string_to_metric_families(client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    before = count("contrique_requests_total", route="/v1/score", status="422")
    client.post("/v1/score", content=b"no image")
    assert count("contrique_requests_total", route="/v1/score", status="422") == before + 1
    assert count("contrique_images_total", outcome="broken") > 0 and count("process_resident_memory_bytes") > 0


def test_the_page_asks_nothing_of_others(client):
    for path, (name, _) in PAGE.items():
        text = (resources.files("contrique_jax.serving") / "page" / name).read_text()
        assert client.get(path).text == text
        assert set(re.findall(r"\w+://[^\"'\s]*", text)) <= {"http://www.w3.org/2000/svg"}
        for other in re.findall(r"(?:src|href)=\"([^\"]+)\"|from \"\./([^\"]+)\"", text):
            assert "/" + "".join(other) in PAGE
    headers = client.get("/").headers
    assert (
        "default-src 'none'" in headers["Content-Security-Policy"]
        and "unsafe" not in headers["Content-Security-Policy"]
    )
    assert headers["X-Content-Type-Options"] == "nosniff" and "server" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"}, {"Host": "["}, {"Origin": "http://rebound.example"}, {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)  # fmt: skip
def test_pages_of_other_sites_may_not_use_it(client, headers):
    response = client.post("/v1/score", content=b"x", headers=headers)
    said(response, 403)
    assert response.headers["X-Frame-Options"] == "DENY"


def test_a_link_from_elsewhere_opens_the_page(client):
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_a_token(service, place):
    # without its lifespan, in which processes would start
    client = TestClient(make_app(service, token=TOKEN), base_url="http://any.example")
    for path in ("/", "/main.js", "/healthz", "/openapi.json"):
        assert client.get(path).status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        assert "token" in said(client.post("/v1/score", content=b"x", headers=headers), 401)
        assert client.get("/metrics", headers=headers).status_code == 401
    assert client.get("/v1/model", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/openapi.json").json()["security"] == [{"token": []}]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--host", "0.0.0.0"], "--token"),
        (["--token", "short"], "8 ASCII"),
        (["--queue", "3"], "raise --queue"),
        (["--body-seconds", "nan"], "--body-seconds"),
        (["--decoders", "-1"], "--decoders"),
        (["--port", "99999999"], "--port 99999999: give a number from 0 to 65535"),
        (["--host", "no.such.name.invalid", "--token", TOKEN], "cannot listen there"),
        (["--port", "0", "--model", "absent"], "absent is no folder"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(argv, words, capsys):
    assert run_verb(serve, argv) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_port_that_is_in_use(capsys):
    with listen("127.0.0.1", 0) as taken:
        assert run_verb(serve, ["--port", str(taken.getsockname()[1])]) == 2
    assert "(it is in use); name another" in capsys.readouterr().err


def test_a_probe_that_needs_a_reference(place):
    probe = load_probe(place / "probe.npz")
    dataclasses.replace(probe, feature_name=FULL_REFERENCE).save(place / "pairs.npz")
    with pytest.raises(UserError, match="images alone"):
        Engine(str(place / "model"), str(place / "pairs.npz"), max_megapixels=1, memory=1)
