"""The interface as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from contrique_jax import __version__
from contrique_jax.serving.limits import Limits

NUMBER, TEXT, YES = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
SCORED = {
    "name": TEXT | {"description": "of the file, as it was sent"},
    "score": NUMBER | {"description": "/v1/model says which direction is better and what the range is"},
    "deviation": {"type": ["number", "null"], "description": "one standard deviation, in the score's units"},
    "interval": {
        "type": ["array", "null"], "items": NUMBER, "minItems": 2, "maxItems": 2,
        "description": "holds nine in ten of the opinions on images like those of the probe",
    },
    "word": TEXT | {"enum": ["bad", "poor", "fair", "good", "excellent"]},
    "better_than": NUMBER | {"minimum": 0, "maximum": 1, "description": "share of the probe's photographs"},
    "why": {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}, "description": "the likeliest first"},
    "map": {
        "type": "array", "items": {"type": "array", "items": NUMBER},
        "description": "scores of 13 x 13 windows from the top left; (i, j) begins at i / 16 of the height and j / 16 of the "
        "width and spans a quarter of both; the mean is the score",
    },
    "width": {"type": "integer", "description": "pixels of the image as it was sent"},
    "height": {"type": "integer"},
    "reduced": YES | {"description": "it had more pixels than the network is given and was scaled down"},
    "thumbnail": TEXT | {"description": "data:image/jpeg, at most 512 pixels long"},
}  # fmt: skip
SCHEMAS: dict[str, Any] = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": TEXT}, "additionalProperties": False},
    "Reason": {
        "type": "object", "required": ["distortion", "level", "probability"], "additionalProperties": False,
        "properties": {
            "distortion": TEXT | {"description": "or none"},
            "level": NUMBER | {"minimum": 0, "maximum": 5},
            "probability": NUMBER | {"minimum": 0, "maximum": 1},
        },
    },
    "Scored": {
        "type": "object", "properties": SCORED, "additionalProperties": False,
        "required": ["name", "score", "deviation", "interval", "word", "width", "height", "reduced"],
    },
    "Broken": {
        "type": "object", "required": ["name", "error"], "properties": {"name": TEXT, "error": TEXT},
        "additionalProperties": False,
    },
    "Results": {
        "type": "object", "required": ["model", "results"], "additionalProperties": False,
        "properties": {
            "model": TEXT | {"description": "names the weights"},
            "results": {
                "type": "array", "description": "in the order of the files",
                "items": {"oneOf": [{"$ref": "#/components/schemas/Scored"}, {"$ref": "#/components/schemas/Broken"}]},
            },
        },
    },
    "Model": {
        "type": "object",
        "required": ["model", "name", "version", "direction", "range", "higher_is_better", "data_set", "limits"],
        "properties": {
            "model": TEXT, "name": TEXT, "version": TEXT, "direction": TEXT, "higher_is_better": YES, "data_set": TEXT,
            "range": {"type": "array", "items": NUMBER}, "maps": YES, "why": YES, "limits": {"type": "object"},
            "histogram": {
                "type": ["object", "null"], "required": ["edges", "shares", "photographs"],
                "description": "how the scores of the probe's photographs are spread",
                "properties": {
                    "edges": {"type": "array", "items": NUMBER}, "shares": {"type": "array", "items": NUMBER},
                    "photographs": {"type": "integer"},
                },
            },
        },
    },
}  # fmt: skip


def document(limits: Limits, with_token: bool) -> dict[str, Any]:
    """Of a server with such limits."""
    image = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "schema": {
            "type": "object",
            "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    }
    refusals = {
        "400": "no upload, or one that cannot be read",
        "403": "asked by a page of another site, or by a name that is not this server's",
        "408": f"it took longer than {limits.body_seconds:g} s to arrive",
        "413": f"more than {limits.files} files or {limits.request_megabytes:g} MB",
        "415": "neither an image nor a form",
        "429": "too many images are waiting; Retry-After says for how many seconds to wait",
        "503": f"no answer within {limits.answer_seconds:g} s",
    } | ({"401": "no token, or a wrong one"} if with_token else {})
    score = {
        "summary": "Scores of one image, or of the files of a form",
        "description": f"At most {limits.file_megabytes:g} MB and {limits.image_megapixels:g} megapixels an image. A file that "
        "is no image has its error in its place among the results.",
        "parameters": [
            _query("map", YES, "give the scores of windows too, if the model has maps"),
            _query("thumbnail", YES, "give a small JPEG of each image too"),
            _query("name", TEXT, "what to call an image that is sent as the body"),
        ],
        "requestBody": {
            "required": True,
            "content": {"image/*": image, "application/octet-stream": image, "multipart/form-data": form},
        },
        "responses": {
            "200": _answer("at least one image has a score", "Results"),
            "422": _answer("none of them could be read", "Results"),
            **{status: _answer(why, "Error") for status, why in sorted(refusals.items())},
        },
    }  # fmt: skip
    unlocked: dict[str, Any] = {"security": []} if with_token else {}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "contrique-jax serve", "version": __version__,
            "description": "Image quality without a reference.", "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/v1/score": {"post": score},
            "/v1/model": {"get": {"summary": "The model, its scale and limits", "responses": {"200": _answer("", "Model")}}},
            "/healthz": {
                "get": {
                    "summary": "Whether the server takes requests", **unlocked,
                    "responses": {"200": {"description": "it does"}, "503": {"description": "it is about to end"}},
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Counters in Prometheus' text format",
                    "responses": {"200": {"description": "text", "content": {"text/plain": {"schema": TEXT}}}},
                }
            },
        },
        "components": {"schemas": SCHEMAS},
    }  # fmt: skip
    if with_token:
        found["components"] = {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"token": []}]
    return found


def _query(name: str, schema: dict[str, Any], says: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": says}


def _answer(says: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": says or "as it is", "content": content}
