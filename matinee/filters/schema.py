"""The JSON schema of a filter, for the OpenAPI document."""

from pydantic.json_schema import JsonSchemaValue

from matinee.filters.parser import LIMITS, LISTS

_VALUE_LIST = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}}
_LIMIT = {"anyOf": [{"type": "number"}, {"type": "string", "description": "a date or a time, ISO 8601"}, {"type": "null"}]}
SCHEMA: JsonSchemaValue = {
    "type": "object",
    "description": "attributes and what is asked of them, all of which must hold: see docs/api.md#filter. `and` and `or` take a list of "
    "filters, `not` takes one. A bare list means `any`.",
    "properties": {
        "and": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "or": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "not": {"type": "object", "minProperties": 1},
    },
    "additionalProperties": {
        "anyOf": [
            _VALUE_LIST,
            {
                "type": "object",
                "properties": {
                    **dict.fromkeys(LISTS, _VALUE_LIST),
                    **dict.fromkeys(LIMITS, _LIMIT),
                    "exists": {"type": "boolean"},
                    "missing": {"type": "boolean"},
                    "match": {"type": "string", "description": "words, all of which the text has"},
                    "near": {
                        "type": "object",
                        "properties": {name: {"type": "number"} for name in ("lat", "lon", "radius_m")},
                        "required": ["lat", "lon", "radius_m"],
                    },
                },
                "additionalProperties": False,
            },
            {"type": "null"},
        ]
    },
    "examples": [
        {"genres": ["Drama"], "year": {"gte": 1990}},
        {
            "and": [
                {"or": [{"genres": {"any": ["Science Fiction"]}}, {"language": {"any": ["fr"]}}]},
                {"not": {"year": {"lt": 1990}}},
            ]
        },
    ],
}
