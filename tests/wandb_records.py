"""Reads back what an offline run of Weights & Biases wrote, record by record."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7


def read_records(folder: Path) -> list[Any]:
    """All records of the only offline run in a run's folder, as protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = Path(folder, "wandb").glob("offline-run-*/*.wandb")
    records = []
    for content in _contents(file.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        records.append(record)
    return records


def _contents(data: bytes) -> Iterator[bytes]:
    """Contents of a log as LevelDB writes it: blocks, across which a record may be divided."""
    assert data[:4] == b":W&B"
    place, parts = FILE_HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if not kind:  # nothing more was written
            return
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def history(records: list[Any]) -> list[dict[str, Any]]:
    """Rows that were logged, a name of several parts joined by slashes as it was given."""
    rows = []
    for record in records:
        if record.WhichOneof("record_type") in ("history", "request"):
            message = record.history if record.HasField("history") else record.request
            items = getattr(message, "item", None) or message.partial_history.item
            row = {_key(item): json.loads(item.value_json) for item in items}
            if row:
                rows.append(row)
    return rows


def config(records: list[Any]) -> dict[str, Any]:
    """The configuration after all updates, by dotted names as far as they were updated so."""
    found: dict[str, Any] = {}
    for record in records:
        for message in (record.config, record.run.config):
            found |= {_key(item): json.loads(item.value_json) for item in message.update}
    return found


def summary(records: list[Any]) -> dict[str, Any]:
    """Values beside the curves that were set by themselves."""
    found: dict[str, Any] = {}
    for record in records:
        found |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
    return found


def artifacts(records: list[Any]) -> dict[str, Any]:
    """Artifacts by name."""
    return {
        record.artifact.name: record.artifact
        for record in records
        if record.WhichOneof("record_type") == "artifact"
    }


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
