"""Downloads, from a server on this machine that can resume, refuse, break off and lie."""

import hashlib
import http.server
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from vaejax import data
from vaejax.data import download, registry
from vaejax.data.registry import File

CONTENT = {name: np.random.default_rng(n).bytes(n) for name, n in (("a.gz", 300_000), ("b.gz", 70_000))}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT under a first path segment that says how to misbehave."""

    def do_GET(self):
        mode, name = self.path.strip("/").split("/")
        offset = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.requests.append((mode, name, offset))
        content = CONTENT[name]
        if mode == "missing":
            return self.send_error(404)
        if mode == "unsatisfiable" and offset:
            return self.send_error(416)
        if mode == "wrong":
            content = content[:-1] + b"!"
        if mode == "long":
            content += bytes(1000)
        ranged = offset and mode not in ("plain", "unsatisfiable")
        self.send_response(206 if ranged else 200)
        if ranged:
            start = offset + 5 if mode == "elsewhere" else offset
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[offset:]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if mode == "cut" else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server, and a registry in which "mnist" is the two files it has; nothing asks a proxy."""
    files = tuple(File(name, len(c), hashlib.sha256(c).hexdigest()) for name, c in CONTENT.items())
    monkeypatch.setitem(registry.SOURCES, "mnist", registry.SOURCES["mnist"]._replace(files=files))
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def assert_whole(directory):
    assert {p.name: p.read_bytes() for p in (directory / "mnist").iterdir()} == CONTENT


def test_files_come_whole_and_are_left_alone_the_second_time(server, tmp_path):
    paths = data.fetch("mnist", tmp_path, base_url=f"{server.url}/good")
    assert paths == [tmp_path / "mnist" / name for name in CONTENT]
    assert_whole(tmp_path)
    paths[0].write_bytes(b"damaged")
    server.requests.clear()
    assert data.fetch("mnist", tmp_path, base_url=f"{server.url}/good/") == paths
    assert server.requests == [("good", "a.gz", 0)]
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("mode", "offsets"), [("good", [1000]), ("plain", [1000]), ("unsatisfiable", [1000, 0]), ("elsewhere", [1000, 0])]
)
def test_a_download_goes_on_where_it_broke_off(server, tmp_path, mode, offsets):
    """And starts over at servers that know no ranges, refuse them, or answer with another one."""
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a.gz.part").write_bytes(CONTENT["a.gz"][:1000])
    data.fetch("mnist", tmp_path, base_url=f"{server.url}/{mode}")
    assert [offset for _, name, offset in server.requests if name == "a.gz"] == offsets
    assert_whole(tmp_path)


def test_a_cut_connection_leaves_its_half_for_the_next_time(server, tmp_path):
    with pytest.raises(
        data.DataFileError, match=r"/cut/a.gz: the connection .*try again .what has come is kept"
    ) as caught:
        data.fetch("mnist", tmp_path, base_url=f"{server.url}/cut")
    assert "\n" not in str(caught.value)
    assert [p.name for p in (tmp_path / "mnist").iterdir()] == ["a.gz.part"]
    assert (tmp_path / "mnist" / "a.gz.part").read_bytes() == CONTENT["a.gz"][:150_000]
    data.fetch("mnist", tmp_path, base_url=f"{server.url}/good")
    assert ("good", "a.gz", 150_000) in server.requests
    assert_whole(tmp_path)


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * 300_000, b"x" * 400_000], ids=["begun", "full", "too long"])
def test_a_wrong_part_is_thrown_away_and_fetched_from_the_start(server, tmp_path, part):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a.gz.part").write_bytes(part)
    data.fetch("mnist", tmp_path, base_url=f"{server.url}/good")
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("missing", "HTTP 404 Not Found"),
        ("wrong", "what it sends has SHA-256 .*, the published file"),
        ("long", "what it sends has 301000 bytes, the published file 300000"),
    ],
)
def test_a_server_without_the_file(server, tmp_path, mode, message):
    with pytest.raises(data.DataFileError, match=rf"could not fetch a.gz \({server.url}/{mode}/a.gz: {message}"):
        data.fetch("mnist", tmp_path, base_url=f"{server.url}/{mode}")
    assert list((tmp_path / "mnist").iterdir()) == []
    assert len(server.requests) == (1 if mode == "missing" else 2)


def test_mirrors_are_tried_in_turn(server, tmp_path, monkeypatch):
    source = registry.SOURCES["mnist"]
    mirrors = tuple(f"{server.url}/{mode}/" for mode in ("missing", "cut", "good"))
    monkeypatch.setitem(registry.SOURCES, "mnist", source._replace(mirrors=mirrors))
    data.fetch("mnist", tmp_path)
    assert server.requests[:3] == [("missing", "a.gz", 0), ("cut", "a.gz", 0), ("good", "a.gz", 150_000)]
    assert_whole(tmp_path)


def test_nobody_there(server, tmp_path):
    with pytest.raises(data.DataFileError, match="refused"):
        data.fetch("mnist", tmp_path, base_url="http://127.0.0.1:1")


def test_a_server_that_falls_silent(server, tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(data.DataFileError, match="timed out"):
        data.fetch("mnist", tmp_path, base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_ctrl_c_leaves_what_has_come(server, tmp_path, monkeypatch):
    arrived = []

    def interrupted(response):
        if len(arrived) == 2:
            raise KeyboardInterrupt
        arrived.append(response.read(download._CHUNK))
        return arrived[-1]

    whole = download._chunk
    monkeypatch.setattr(download, "_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.fetch("mnist", tmp_path, base_url=f"{server.url}/good")
    assert (tmp_path / "mnist" / "a.gz.part").read_bytes() == CONTENT["a.gz"][: 2 * download._CHUNK]
    monkeypatch.setattr(download, "_chunk", whole)
    data.fetch("mnist", tmp_path, base_url=f"{server.url}/good")
    assert_whole(tmp_path)


def test_the_disk(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"cannot write into .*/file/mnist: .*choose a folder by directory= or VAEJAX_DATA"
    ):
        data.fetch("mnist", tmp_path / "file", base_url=f"{server.url}/good")
    usage = shutil.disk_usage(tmp_path)._replace(free=369_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="has 369999 bytes free, 370000 are needed; make room"):
        data.fetch("mnist", tmp_path, base_url=f"{server.url}/good")
    assert not server.requests


def test_a_bar_where_it_is_wanted(server, tmp_path, capsys):
    data.fetch("mnist", tmp_path / "quiet", base_url=f"{server.url}/good")
    assert capsys.readouterr().err == ""
    data.fetch("mnist", tmp_path / "shown", base_url=f"{server.url}/good", progress=True)
    assert "b.gz: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {}, "digits comes from scikit-learn.*it comes with scikit-learn"),
        ("frey", {}, r"Roweis, https://cs.nyu.edu/~roweis/data/frey_rawface.mat; it cannot be fetched.*freyfaces.npz"),
        ("mnst", {}, "did you mean 'mnist'"),
        ("mnist", {"base_url": "file:///etc"}, "base_url must begin with http:// or https://, got 'file:///etc'"),
    ],
)
def test_what_cannot_be_fetched(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        data.fetch(name, tmp_path, **options)
    assert list(Path(tmp_path).iterdir()) == []


def test_the_registry_knows_every_file_that_is_fetched():
    for source in registry.SOURCES.values():
        for file in source.files if source.mirrors else ():
            assert file.size > 1000
            assert len(file.sha256) == 64
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in source.mirrors)
