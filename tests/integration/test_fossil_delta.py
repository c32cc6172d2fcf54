"""Patches between us and the implementation that SDKs in JavaScript are built on (npm `fossil-delta`)."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.fossil import patch, patched, text_patch
from tests.support.go_programs import UnavailableError
from tests.support.npm import environment, npm_folder

PACKAGE = "fossil-delta@2.0.0"
SCRIPT = """
import * as fossil from "fossil-delta";
import { createInterface } from "node:readline";
const bytes = (text) => Buffer.from(text, "base64");
createInterface({ input: process.stdin }).on("line", (line) => {
  const [what, one, other] = JSON.parse(line);
  console.log(Buffer.from(fossil[what](bytes(one), bytes(other))).toString("base64"));
});
"""
PIECES = st.sampled_from([b"temperature", "é漢😀".encode(), b" " * 30, b"x" * 50, b"0123456789" * 4, b"\x00\xff"])
BYTES = st.lists(PIECES | st.binary(max_size=40), max_size=15).map(b"".join)
TEXTS = st.lists(st.sampled_from(["temperature", "é漢😀", "x" * 40]) | st.text(max_size=20), max_size=15).map(
    lambda parts: "".join(parts).encode(errors="replace")
)


class Foreign:
    """A process that is asked over its pipes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, what: str, one: bytes, other: bytes) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps([what, *(base64.b64encode(each).decode() for each in (one, other))]),
            file=self._process.stdin,
            flush=True,
        )
        return base64.b64decode(self._process.stdout.readline())


@pytest.fixture(scope="module")
def foreign() -> Iterator[Foreign]:
    try:
        folder: Path = npm_folder(PACKAGE)
    except UnavailableError as error:
        pytest.skip(str(error))
    with subprocess.Popen(
        ["node", "--input-type=module", "-e", SCRIPT],
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Foreign(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


@pytest.mark.parametrize(("make", "texts"), [(patch, BYTES), (text_patch, TEXTS)], ids=["bytes", "text"])
def test_it_applies_our_patches(
    foreign: Foreign, make: Callable[[bytes, bytes], bytes | None], texts: st.SearchStrategy[bytes]
) -> None:
    applied = 0

    @given(texts, texts)
    @settings(deadline=None, max_examples=500)
    def check(source: bytes, target: bytes) -> None:
        nonlocal applied
        made = make(source, target)
        if made is not None:
            applied += 1
            if make is text_patch:  # which is a JSON string on its way to the client
                made = json.loads(json.dumps(made.decode())).encode()
            assert foreign.ask("applyDelta", source, made) == target

    check()
    assert applied > 50


def test_we_apply_its_patches(foreign: Foreign) -> None:
    @given(BYTES, BYTES)
    @settings(deadline=None, max_examples=300)
    def check(source: bytes, target: bytes) -> None:
        assert patched(source, foreign.ask("createDelta", source, target)) == target

    check()
