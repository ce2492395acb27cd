"""The dataset on disk: rows, shards, manifests and versions.

Knows voxels, files and bytes, but nothing of masks, models or inpainting.
"""

from synthct.dataset.digest import canonical_json, merkle_root, sample_digest
from synthct.dataset.journal import record_shard
from synthct.dataset.manifest import Manifest, Release, read_manifest, release_of, write_manifest
from synthct.dataset.rows import decode, encode
from synthct.dataset.sample import Sample
from synthct.dataset.schema import (
    FORMAT_VERSION,
    Facts,
    arrow_schema,
    features,
)
from synthct.dataset.version import Staging, commit, discard, find_release, open_staging
from synthct.dataset.writer import (
    Rejection,
    ShardRecord,
    read_shard,
    shard_name,
    write_shard,
)

__all__ = [
    "FORMAT_VERSION",
    "Facts",
    "Manifest",
    "Rejection",
    "Release",
    "Sample",
    "ShardRecord",
    "Staging",
    "arrow_schema",
    "canonical_json",
    "commit",
    "decode",
    "discard",
    "encode",
    "features",
    "find_release",
    "merkle_root",
    "open_staging",
    "read_manifest",
    "read_shard",
    "record_shard",
    "release_of",
    "sample_digest",
    "shard_name",
    "write_manifest",
    "write_shard",
]
