"""The four codecs by name (protocol.md section 5)."""

from __future__ import annotations

from collections.abc import Mapping

from fednode.training.codec.base import ChunkCodec
from fednode.training.codec.block import Int4, Int8
from fednode.training.codec.f32 import Exact
from fednode.training.codec.topk import TopK
from fednode.types import Codec

CODEC: Mapping[Codec, ChunkCodec] = {"i8": Int8(), "i4": Int4(), "tk64": TopK(), "f32": Exact()}
