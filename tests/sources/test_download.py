"""Downloads from a server on this machine: whole and checked, or not at all."""

import hashlib
import http.server
import threading
from urllib.error import URLError

import pytest
import torch
import torchvision

from zoo_lightning.errors import SourceError
from zoo_lightning.sources import download
from zoo_lightning.sources.download import cache_folder, cached_name, fetch
from zoo_lightning.sources.reading import IMAGENET, read_weights
from zoo_lightning.sources.spec import Source


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a dictionary of contents; ``/short`` promises more than it sends."""

    contents: dict[str, bytes] = {}  # noqa: RUF012  (filled by the fixture)
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        """Answer with the content of the path."""
        self.asked.append(self.path)
        content = self.contents.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"") + 9 * (self.path == "/short")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *args):
        """Be silent."""


@pytest.fixture(scope="module")
def server(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "weights.pth"
    torch.save(small, path)
    content = path.read_bytes()
    Handler.contents = {"/weights.pth": content, "/short": content}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", hashlib.sha256(content).hexdigest()
        running.shutdown()


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    Handler.asked.clear()


def cached():
    return [path.name for path in cache_folder().iterdir()] if cache_folder().exists() else []


def test_a_file_with_the_right_digest_is_downloaded_once(server, small, assert_same):
    address, digest = server
    source = Source("web", f"{address}/weights.pth#sha256={digest.upper()}")
    for _ in range(2):
        assert_same(read_weights(source, "test_resnet").state, small)
    assert Handler.asked == ["/weights.pth"]
    assert cached() == [cached_name(f"{address}/weights.pth")]


def test_a_wrong_digest_is_refused_and_nothing_kept(server):
    address, _ = server
    with pytest.raises(SourceError, match=r"'web': .*expected 0000.*changed or damaged"):
        read_weights(Source("web", f"{address}/weights.pth#sha256={'0' * 64}"), None)
    assert cached() == []


def test_a_damaged_cached_copy_is_downloaded_again(server):
    address, digest = server
    path = fetch(f"{address}/weights.pth", digest)
    path.write_bytes(b"damaged")
    assert fetch(f"{address}/weights.pth", digest).stat().st_size > 100
    assert len(Handler.asked) == 2


def test_a_download_that_breaks_off_is_refused(server):
    with pytest.raises(SourceError, match="broke off after"):
        fetch(f"{server[0]}/short")
    assert cached() == []


def test_a_missing_address_is_refused_with_the_mend(server):
    with pytest.raises(SourceError, match=r"404.*give the file's path as weights"):
        fetch(f"{server[0]}/absent.pth")
    assert cached() == []


def test_no_network_is_refused_with_the_mend(monkeypatch):
    def fail(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(download, "urlopen", fail)
    with pytest.raises(SourceError, match=r"cannot be downloaded .*no route.*path as weights"):
        read_weights(Source("web", "https://example.org/w.pth"), None)


def test_an_encrypted_address_may_not_lead_to_an_open_one(server, monkeypatch):
    address, _ = server
    real = download.urlopen
    monkeypatch.setattr(
        download, "urlopen", lambda *args, **kwargs: real(f"{address}/weights.pth", timeout=5)
    )
    with pytest.raises(SourceError, match="not encrypted"):
        fetch("https://example.org/w.pth")


def test_files_of_one_name_from_two_servers_do_not_mix():
    assert cached_name("https://a.org/m.pth") != cached_name("https://b.org/m.pth")


@pytest.mark.parametrize(
    "name", ["ResNet50_Weights.IMAGENET1K_V1", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"]
)
def test_torchvision_weights_are_checked_by_their_names_digest(name, small, monkeypatch):
    asked = []

    def fake(url, sha256, file_name):
        asked.append((url, sha256, file_name))
        cache_folder().mkdir(parents=True, exist_ok=True)
        torch.save(small, cache_folder() / file_name)
        return cache_folder() / file_name

    monkeypatch.setattr("zoo_lightning.sources.reading.fetch", fake)
    weights = read_weights(Source("tv", f"torchvision:{name}"), None)
    url = torchvision.models.get_weight(name).url
    file_name = url.rpartition("/")[2]
    assert asked == [(url, file_name.rpartition("-")[2].removesuffix(".pth"), file_name)]
    assert weights.normalisation == IMAGENET


def test_unknown_torchvision_weights_name_the_nearest():
    with pytest.raises(SourceError, match=r"Did you mean 'ResNet50_Weights\.IMAGENET1K_V[12]'"):
        read_weights(Source("tv", "torchvision:ResNet50_Weights.IMAGENET1K"), None)
    with pytest.raises(SourceError, match="torchvision has no weights 'nonsense'"):
        read_weights(Source("tv", "torchvision:nonsense"), None)
