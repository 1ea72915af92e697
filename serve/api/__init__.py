"""The HTTP API: routes, schemas, keys, middleware and errors."""
