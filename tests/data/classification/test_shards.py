"""Shards of WebDataset: what is read of them, in which order, and what is refused."""

import io
import json
import logging
import pickle
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.classification.shards import (
    ShardSampler,
    WebDatasetShards,
    buffered,
    expanded,
)
from zoo_lightning.data.stored_images import FileSection
from zoo_lightning.errors import ConfigError, DataError


def encoded(value, kind="png", mode="RGB"):
    """An image of one brightness."""
    stream = io.BytesIO()
    pixels = np.full((20, 24, 3), value, np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, {"jpg": "JPEG"}.get(kind, kind))
    return stream.getvalue()


def write_shard(path, members):
    """A tar archive of names and contents, in that order."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            content = content if isinstance(content, bytes) else str(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def sample(number, label, kind="png"):
    return [(f"{number:04d}.{kind}", encoded(number, kind)), (f"{number:04d}.cls", label)]


def write_shards(root, part, shards, each, classes=3):
    """Shards of images whose brightness is their number and whose class is it modulo 3."""
    root.mkdir(exist_ok=True)
    for shard in range(shards):
        numbers = range(shard * each, (shard + 1) * each)
        members = [pair for number in numbers for pair in sample(number, number % classes)]
        write_shard(root / f"{part}-{shard:03d}.tar", members)
    return root


@pytest.fixture
def shards(tmp_path):
    """Four training shards of twelve images and a test shard of nine."""
    root = write_shards(tmp_path / "shards", "train", 4, 12)
    return write_shards(root, "test", 1, 9)


def module(root, **options):
    small = {"image_size": 16, "batch_size": 4, "num_workers": 0, "val_fraction": 0.25}
    return WebDatasetShards(str(root), **(small | options))


def names(loader):
    return [int(index) for batch in loader for index in batch["index"]]


def test_images_and_labels_are_those_of_the_members(shards):
    data = module(shards)
    data.setup("fit")
    data.setup("test")
    assert data.class_names == ["0", "1", "2"]
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (36, 12, 9)
    assert sorted(Counter(data.val_set.labels).values()) == [4, 4, 4]
    assert data.test_set.names[3] == "test-000.tar/0003.png"
    found = data.test_set[7]
    assert (int(found["image"].unique()), found["label"]) == (7, 1)
    assert not {*data.train_set.names} & {*data.val_set.names}


@pytest.mark.parametrize(("kind", "mode"), [("jpg", "RGB"), ("webp", "RGB"), ("png", "RGBA")])
def test_labels_in_json_and_other_formats_of_images(tmp_path, kind, mode):
    label = {"species": "bee", "id": 4}
    for part in ("train", "test"):
        members = []
        for number in range(12):
            label = {"species": ("ant", "bee")[number % 2]}
            members += [
                (f"a/{number}.txt", "a caption"),
                (f"a/{number}.{kind.upper()}", encoded(100 + number, kind, mode)),
                (f"a/{number}.json", json.dumps(label)),
                (f"a/._{number}.{kind}", b"of macOS"),
            ]
        write_shard(tmp_path / f"{part}-0.tar", members)
    data = module(tmp_path, label_key="species")
    data.setup("test")
    assert data.class_names == ["ant", "bee"]
    assert data.test_set.labels == [0, 1] * 6
    assert abs(int(data.test_set[5]["image"].float().mean()) - 105) <= 2


def test_classes_have_the_names_of_the_list(shards):
    (shards / "classes.txt").write_text("ant\nbee\ncat\n")
    data = module(shards)
    data.setup("test")
    assert data.class_names == ["ant", "bee", "cat"]
    assert data.facts()["classes"] == ["ant", "bee", "cat"]
    assert data.test_set.labels[:4] == [0, 1, 2, 0]


def test_what_webdataset_itself_writes_and_reads_is_read_alike(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=7, verbose=0) as writer:
        for number in range(20):
            pixels = np.full((8, 8, 3), number, np.uint8)
            writer.write({"__key__": f"x{number}", "png": pixels, "cls": number % 2})
    data = module(tmp_path)
    ours = [(source.key, label) for source, label in data._read("train")]
    url = str(tmp_path / "train-{000..002}.tar")
    theirs = webdataset.WebDataset(url, shardshuffle=False).decode()
    assert ours == [(each["__key__"], each["cls"]) for each in theirs]


def test_validation_shards_are_used_and_tested_on_where_there_are_no_others(shards):
    write_shards(shards, "val", 1, 6)
    data = module(shards)
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (48, 6)
    (shards / "test-000.tar").unlink()
    data = module(shards)
    data.setup("fit")
    data.setup("test")
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (36, 12, 6)
    assert data.test_set.names[0] == "val-000.tar/0000.png"


def test_whole_shards_are_split_off_by_a_pattern_that_leaves_no_key(shards):
    data = module(shards, group_pattern=".*")
    data.setup("fit")
    sides = [
        {name.partition("/")[0] for name in each.names} for each in (data.train_set, data.val_set)
    ]
    assert [len(side) for side in sides] == [3, 1]
    assert not sides[0] & sides[1]


def test_ranges_of_numbers_name_shards_that_must_exist(shards):
    data = module(shards, train_shards="train-{000..002}.tar")
    assert len(data._read("train")) == 36
    assert list(expanded("a{08..11}-{1..2}")) == [f"a{n}-{m}" for n in ("08", "09", "10", "11")
                                                  for m in (1, 2)]  # fmt: skip
    with pytest.raises(DataError, match=r"train-004\.tar does not exist.*2 of 6"):
        module(shards, train_shards="train-{000..005}.tar")
    with pytest.raises(ConfigError, match="rise"):
        module(shards, train_shards="train-{5..2}.tar")


@pytest.mark.parametrize("pattern", ["s3://bucket/{0..1}.tar", "pipe:cat x", "/a.tar", "../a.tar"])
def test_shards_elsewhere_are_refused(shards, pattern):
    with pytest.raises(ConfigError, match="inside `root`"):
        module(shards, train_shards=pattern)


def sampler_of(**options):
    shards = [shard for shard in range(10) for _ in range(12)]
    given = {"buffer": 20, "batch_size": 4, "seed": 3} | options
    return ShardSampler(shards, **given)


def test_every_sample_comes_once_in_another_order_each_epoch():
    sampler = sampler_of()
    first = [index for _, index in sampler]
    sampler.position = sampler.batches_per_epoch
    second = [index for _, index in sampler]
    assert sorted(first) == sorted(second) == list(range(120))
    assert first != second


def test_few_shards_are_read_at_a_time():
    drawn = [index // 12 for _, index in sampler_of()]
    assert len(set(drawn[:8])) <= 3  # a buffer of 20 holds samples of three shards at most
    assert len(set([index // 12 for _, index in sampler_of(buffer=120)][:8])) > 3


def test_a_buffer_of_one_keeps_the_order_of_the_shards():
    drawn = [index for _, index in sampler_of(buffer=1)]
    for start in range(0, 120, 12):
        assert drawn[start : start + 12] == list(range(drawn[start], drawn[start] + 12))


def test_it_goes_on_at_any_batch():
    whole = list(sampler_of())
    resumed = sampler_of()
    resumed.position = 7
    assert list(resumed) == whole[28:]
    assert list(sampler_of(seed=4)) != whole


def test_processes_read_shards_of_their_own():
    ranks = [[index for _, index in sampler_of(rank=r, world_size=2)] for r in range(2)]
    assert sorted(ranks[0] + ranks[1]) == list(range(120))
    of = [{index // 12 for index in rank} for rank in ranks]
    assert not of[0] & of[1]


def test_a_draw_from_the_buffer_is_uniform():
    counts = Counter()
    for seed in range(600):
        generator = torch.Generator().manual_seed(seed)
        counts[buffered(range(9), 3, generator)[0]] += 1
    assert set(counts) == {0, 1, 2}
    assert min(counts.values()) > 150


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_loader_resumes_with_the_batch_that_was_next(shards, balanced, workers):
    options = {"balanced": balanced, "num_workers": workers, "shuffle_buffer": 9}
    data = module(shards, **options)
    data.setup("fit")
    whole = [batch for _ in range(2) for batch in [*data.train_dataloader()]]
    loader = data.train_dataloader()
    seen = []
    for batch in loader:
        seen.append(batch)
        if len(seen) == 5:
            break
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    again = module(shards, **options | {"num_workers": 0})
    again.setup("fit")
    resumed = again.train_dataloader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    for before, now in zip(whole[5:9], rest, strict=True):
        torch.testing.assert_close(before, now)


def test_an_order_that_depends_on_the_number_of_processes_is_kept_by_it(shards):
    assert module(shards).training_options()["processes"] == 1
    assert "processes" not in module(shards, balanced=True).training_options()


def damage(shards, members):
    write_shard(shards / "train-001.tar", members)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ([("7.cls", "1")], r"sample '7' has no image"),
        ([("7.png", encoded(1)), ("7.jpg", encoded(1, "jpg")), ("7.cls", 1)], "2 images"),
        ([("7.png", encoded(1))], r"sample '7' has no label \(png\)"),
        ([("7.png", encoded(1)), ("8.png", encoded(1)), ("7.cls", 1)], "side by side"),
        ([("7.png", encoded(1)), ("7.cls", "")], "label ''"),
        ([("7.png", encoded(1)), ("7.cls", "ant")], "'ant'.*expected numbers or names"),
        ([("7.png", encoded(1)), ("7.cls", "-1")], "label '-1'"),
        ([("7.png", encoded(1)), ("7.cls", "9" * 30)], "expected one below"),
        ([("7.png", encoded(1)), ("7.cls", b"\xff\xfe")], "cannot be read"),
        ([("7.png", encoded(1)), ("7.json", "{")], "json cannot be read"),
        ([("7.png", encoded(1)), ("7.json", "[" * 100_000)], "json cannot be read"),
        ([("7.png", encoded(1)), ("7.json", '{"cls": 1}')], "no 'label', it has cls"),
        ([("7.png", encoded(1)), ("7.json", '{"label": [1]}')], "has the label"),
        ([("7.png", encoded(1)), ("7.json", '{"label": true}')], "has the label"),
        ([("7.txt", "x")], "no image"),
        ([], "has no samples"),
    ],
)
def test_samples_that_cannot_be_used_are_refused_with_shard_and_key(shards, members, named):
    damage(shards, members)
    with pytest.raises(DataError, match=f"(?s)train-001.tar.*{named}|{named}.*train-001.tar"):
        module(shards).setup("fit")


def test_labels_beyond_the_classes_are_refused(shards):
    (shards / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match=r"train-000\.tar, 0002\.png has the label '2'.*2 classes"):
        module(shards).setup("fit")
    (shards / "classes.txt").write_text("ant\nbee\nant\n")
    with pytest.raises(DataError, match=r"classes\.txt names class 'ant' twice"):
        module(shards)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    "content", [b"no image", encoded(3)[:-30], b"", encoded(3, "jpg")[:-40]],
    ids=["text", "cut", "empty", "cut jpg"],
)  # fmt: skip
def test_images_that_cannot_be_read_are_named_or_left_out(shards, content, skip):
    kind = "jpg" if content[:2] == b"\xff\xd8" else "png"
    damage(shards, [*sample(0, 0), (f"k.{kind}", content), ("k.cls", 1), *sample(2, 2)])
    data = module(shards, skip_broken=skip)
    if not skip:
        with pytest.raises(DataError, match=rf"train-001\.tar, k\.{kind} cannot be read"):
            data.setup("fit")
        return
    with pytest.warns(UserWarning, match="1 of 39 train images are skipped"):
        data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 38


@pytest.mark.parametrize("damaged", ["cut", "gzip", "text", "header"])
def test_archives_that_cannot_be_read_are_refused_by_name(shards, damaged):
    file = shards / "train-002.tar"
    content = file.read_bytes()
    if damaged == "cut":
        file.write_bytes(content[:5000])
    elif damaged == "gzip":
        import gzip

        file.write_bytes(gzip.compress(content))
    elif damaged == "text":
        file.write_bytes(b"x" * 4096)
    else:  # which tarfile takes for the end
        file.write_bytes(content[:4096] + b"\xff" * 512 + content[4608:])
    with pytest.raises(DataError, match=r"train-002\.tar cannot be read as an uncompressed tar"):
        module(shards)


def test_a_folder_without_shards_is_refused_with_what_it_has(shards, tmp_path):
    with pytest.raises(DataError, match=r"no shards part-\*\.tar; set `train_shards`.*test-000"):
        module(shards, train_shards="part-*.tar", test_shards="none.tar")
    with pytest.raises(DataError, match="does not exist"):
        module(tmp_path / "none")
    for file in shards.glob("train*"):
        file.unlink()
    data = module(shards)  # enough to test on
    data.setup("test")
    assert len(data.test_set) == 9
    with pytest.raises(DataError, match="no shards train"):
        data.setup("fit")


def test_deep_images_have_one_scale(tmp_path):
    members = []
    for number in range(8):
        stream = io.BytesIO()
        Image.fromarray(np.full((20, 20), 500 * number, np.uint16)).save(stream, "png")
        members += [(f"{number}.png", stream.getvalue()), (f"{number}.cls", number % 2)]
    for part in ("train", "test"):
        write_shard(tmp_path / f"{part}-0.tar", members)
    data = module(tmp_path)
    data.setup("fit")
    data.setup("test")
    assert data.value_range == (0, 4095)
    assert int(data.test_set[7]["image"].unique()) == 3500 // 16


def test_a_section_reads_as_a_file_of_its_own(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with io.BufferedReader(FileSection(tmp_path / "file", 10, 20)) as section:
        assert section.read(3) == bytes([10, 11, 12])
        assert section.seek(-2, io.SEEK_END) == 18
        assert section.read() == bytes([28, 29])
        assert section.seek(0) == 0
        assert section.read() == bytes(range(10, 30))
        assert section.read() == b""
        with pytest.raises(OSError, match="position"):
            section.seek(-1)


def test_samples_are_those_of_the_same_images_in_folders(shards, tmp_path):
    for part in ("train", "test"):
        for source, label in module(shards)._read(part):
            folder = tmp_path / "folders" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / source.name.replace("/", "_")).write_bytes(source.open().read())
    folders = ImageFolders(str(tmp_path / "folders"), image_size=16, num_workers=0)
    ours = module(shards)
    for data in (folders, ours):
        data.setup("test")
    theirs = {int(each["image"].unique()): each["label"] for each in folders.test_set}
    assert {int(each["image"].unique()): each["label"] for each in ours.test_set} == theirs


def test_a_shard_that_is_cut_off_behind_a_sample_is_refused(shards):
    path = shards / "train-001.tar"
    with tarfile.open(path) as archive:
        end = archive.getmembers()[6].offset
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match=r"train-001.tar cannot be read.*no end of the archive"):
        module(shards)


@pytest.mark.parametrize("name", ["valid", "validation", "dev"])
def test_shards_of_validation_of_another_name_are_named(shards, name, caplog):
    (shards / "test-000.tar").rename(shards / f"{name}-000.tar")
    with caplog.at_level(logging.INFO):
        module(shards).setup("fit")
    (line,) = [each for each in caplog.messages if "is not read" in each]
    assert f"--data.val_shards '{name}-*.tar'" in line
    caplog.clear()
    with caplog.at_level(logging.INFO):
        module(shards, test_shards=f"{name}-*.tar").setup("fit")
    assert "is not read" not in caplog.text
