"""The script for GPUs, here on a CPU with two layers: every path of it runs and gives a figure."""

import json
import sys
from pathlib import Path

import pytest

from bench import gpu


def test_every_part_gives_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--shapes", "tiny", "--json", str(report)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    done = json.loads(report.read_text(encoding="utf-8"))
    assert done["failed"] == {}
    assert ended.value.code == 0
    assert done["left_out"] == []
    assert [row["what"] for row in done["rows"]] == ["encode"] * 4 + ["write"] * 4 + ["train"]
    assert all(row["value"] > 0 for row in done["rows"])


def test_what_no_time_is_left_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--shapes", "tiny", "--minutes", "0"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "no time was left for encoding in bf16" in capsys.readouterr().out
