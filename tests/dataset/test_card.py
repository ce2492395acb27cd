"""The dataset card, and what load_dataset makes of a finished folder."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from dataset_rows import METRICS, PROVENANCE, complete, make_sample, stage
from markdown_it import MarkdownIt
from PIL import Image
from ruamel.yaml import YAML

from synthct.dataset.documents.card import CardFacts, SourceNote, attribution, dataset_card
from synthct.dataset.manifest import Release, release_of
from synthct.dataset.markdown import code, inert
from synthct.dataset.schema import Facts
from synthct.dataset.summary import Summary, summarise
from synthct.dataset.version import commit
from synthct.errors import counted
from synthct.models.methods import DIFFUSION_WORDS
from synthct.storage.files import atomic_write
from synthct.volume.intensity import SOFT_TISSUE
from synthct.volume.views import from_picture

FACTS = CardFacts(
    title="Tiny boxes",
    licence="CC-BY-NC-SA-4.0",
    view="axial",
    preview_window="level 50 HU, width 400 HU",
    sources=(SourceNote("hosts", "kits", "CC-BY-NC-SA-4.0", "Heller et al., KiTS23", 1),),
    labels={"kidney": 1, "tumor": 2},
    method="diffusion",
    words=DIFFUSION_WORDS,
    settings={"repository": "package:starter-2d", "scheduler": "dpmsolver++", "steps": "20"},
    picture="preview.png",
    keep_original=True,
    ignore=True,
    notes=("1 patient is too few for 3 splits: everything is train",),
)

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://example.com/x.png)",
    "`code` ``more``",
    "a\n\n# heading\n\n- item",
    "a | b | c",
    "| a |\n|---|",
    "---\nlicense: mit\n---",
    "*bold* _under_ ~~gone~~ **strong**",
    "1. list",
    "- item",
    "> quote",
    "# heading",
    "==== ",
    "```python\nimport os\n```",
    "&lt;script&gt;",
    "<!-- comment",
    "</td></table><iframe src=//example.com>",
    "\x1b[31mred\x07",
    "\u202edesrever",
    "@someone #12 $x^2$",
    "[ref]: http://example.com",
    "\\*escaped\\*",
    "<a@example.com>",
    "    indented",
    "!!python/object/apply:os.system ['true']",
    "*alias &anchor",
    "{{ template }} {% x %}",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Summary]:
    """A release of six samples and its summary."""
    staging, records = stage(tmp_path_factory.mktemp("made") / "1.0.0")
    release = release_of(
        staging.tree, name="tiny", version="1.0.0", plan_id="plan-a", shards=records
    )
    return release, summarise(staging.tree, records)


def split_card(card: str) -> tuple[dict[str, Any], str]:
    match = re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)
    assert match
    header: dict[str, Any] = YAML(typ="safe").load(match[1])
    return header, card[match.end() :]


def tokens_of(page: str) -> list[str]:
    """Kinds of all block and inline tokens of a page, and the HTML in it."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    blocks = parser.parse(page)
    return [token.type for block in blocks for token in (block, *(block.children or ()))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished version with its card."""
    final = tmp_path_factory.mktemp("out") / "tiny" / "1.0.0"
    staging, records = stage(final)
    release = release_of(
        staging.tree, name="tiny", version="1.0.0", plan_id="plan-a", shards=records
    )
    card = dataset_card(release, summarise(staging.tree, records), FACTS)
    atomic_write(staging.tree / "README.md", card.encode())
    atomic_write(staging.tree / "attribution.md", attribution(FACTS.sources).encode())
    Image.new("RGB", (8, 8)).save(staging.tree / "preview.png")
    return commit(staging, complete(staging, records))


def test_load_dataset_gives_voxels_splits_and_provenance(finished: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    dataset = load_dataset(str(finished), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 4, "validation": 2}
    for number, row in enumerate([*dataset["train"], *dataset["validation"]]):
        sample = make_sample(number)
        assert sample.original is not None
        hu = np.asarray(row["image"]).astype(np.int16) - 1024
        assert np.array_equal(from_picture(hu, "axial"), sample.image)
        original = np.asarray(row["original"]).astype(np.int16) - 1024
        assert np.array_equal(from_picture(original, "axial"), sample.original)
        assert np.array_equal(from_picture(np.asarray(row["mask"]) > 0, "axial"), sample.mask)
        assert np.array_equal(from_picture(np.asarray(row["label_map"]), "axial"), sample.labels)
        facts = {field.name: row[field.name] for field in fields(Facts)}
        preview = {"preview": SOFT_TISSUE.model_dump()}
        assert row["provenance"] == {**PROVENANCE, **facts, **preview}
        assert row["texture_ratio"] is None
        assert row["seam_ratio"] == METRICS["seam_ratio"]
        assert row["host_in_training"] is False
        assert row["label"] is None
        assert len(row["affine"]) == 16
        assert row["preview"].size == hu.shape[::-1]


@pytest.mark.long
def test_the_cards_own_code_runs(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, page = split_card((finished / "README.md").read_text(encoding="utf-8"))
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    assert all("load_dataset  # 4.7 or newer" in block for block in blocks[:2])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("<folder or user>/tiny", str(finished)), names)
    assert np.array_equal(names["hu"].T[::-1, ::-1], make_sample(0).image[..., 0])
    assert names["painted"].any()
    assert names["dataset"].num_rows == {"train": 4, "validation": 2}


def test_a_part_can_be_loaded_by_measure(finished: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    wanted = [("seam_ratio", "<", 1.15), ("slice_index", "==", 7), ("sample_id", "!=", "x")]
    dataset = load_dataset(str(finished), cache_dir=str(tmp_path), filters=wanted)
    assert dataset.num_rows == {"train": 4, "validation": 2}
    wanted = [("sample_id", ">", "host.boxes.d002")]
    dataset = load_dataset(str(finished), cache_dir=str(tmp_path), filters=wanted)
    assert dataset.num_rows == {"train": 2, "validation": 2}


def test_phantoms_are_not_called_patients(made: tuple[Release, Summary]) -> None:
    source = SourceNote("hosts", "phantom", "CC0-1.0", None, 1)
    card = dataset_card(*made, replace(FACTS, sources=(source,)))
    assert "procedural phantom" in card
    assert "real patient" not in card
    assert "not anonymous" not in card


def test_page_checksums_can_be_asked_of_load_dataset(finished: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    shard = next((finished / "data").glob("train-00000*"))
    flipped = bytearray(shard.read_bytes())
    flipped[flipped.index(b"IDAT") + 30] ^= 1  # in a picture, where nothing else would notice
    (tmp_path / "bad.parquet").write_bytes(flipped)
    options = pa.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    with pytest.raises(DatasetGenerationError):
        load_dataset(
            "parquet",
            data_files=str(tmp_path / "bad.parquet"),
            cache_dir=str(tmp_path / "cache"),
            fragment_scan_options=options,
        )


def test_header_is_what_the_hub_reads(made: tuple[Release, Summary]) -> None:
    from huggingface_hub import DatasetCard

    card = dataset_card(*made, FACTS)
    header, _ = split_card(card)
    assert header["license"] == "cc-by-nc-sa-4.0"
    assert header["size_categories"] == ["n<1K"]
    assert header["configs"] == [
        {
            "config_name": "default",
            "description": f"content {made[0].content_id}, files {made[1].shards_id[:12]}",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "validation", "path": "data/validation-*.parquet"},
            ],
        }
    ]
    assert DatasetCard(card).data.to_dict()["pretty_name"] == "Tiny boxes"


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, {"license": "unknown"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Hospital DUA 7", {"license": "other", "license_name": "Hospital DUA 7"}),
    ],
)
def test_licence_in_the_header(
    made: tuple[Release, Summary], licence: str | None, expected: dict[str, str]
) -> None:
    header, page = split_card(dataset_card(*made, replace(FACTS, licence=licence)))
    assert {k: v for k, v in header.items() if k.startswith("license")} == expected
    assert ("unknown: ask" in page) == (licence is None)


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M")])
def test_size_category(made: tuple[Release, Summary], rows: int, size: str) -> None:
    release, summary = made
    split = release.splits[0].model_copy(update={"rows": rows})
    header, _ = split_card(
        dataset_card(release.model_copy(update={"splits": (split,)}), summary, FACTS)
    )
    assert header["size_categories"] == [size]


def test_card_says_what_is_in_it(made: tuple[Release, Summary]) -> None:
    card = dataset_card(*made, FACTS)
    assert "6 axial CT slices of 1 patient," in card
    assert "| `boxes` | box | whatever fits | 4 | 2 | 6 |" in card
    assert "| all |  |  | 4 | 2 | 6 |" in card
    assert "| 2 | `tumor` |" in card
    assert "| 255 | ignore" in card
    assert "![Samples of the dataset](./preview.png)" in card
    assert "| `painted_mean_hu` | mean of what was painted | 41.5 | 41.5 | 41.5 | HU | 6 |" in card
    assert "not anonymous" in card
    assert "Rejected (`rejected.parquet`): 3 planned samples." in card
    assert "too few for 3 splits" in card
    assert "[CC-BY-NC-SA-4.0](https://creativecommons.org/licenses/by-nc-sa/4.0/)" in card
    assert "KiTS23" in card
    assert "`original`" in card
    assert "`original`" not in dataset_card(*made, replace(FACTS, keep_original=False))


def hostile_card(made: tuple[Release, Summary], text: str, facts: CardFacts) -> str:
    release = made[0].model_copy(update={"name": text, "plan_id": text})
    summary = replace(
        made[1],
        by_mask={(text, "box", text): {"train": 6}},
        by_case={text: 6},
        rejected={text: 1},
    )
    return dataset_card(release, summary, facts)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert(made: tuple[Release, Summary], text: str) -> None:
    source = SourceNote(text, text, text, text, 1)
    facts = replace(
        FACTS,
        title=text,
        description=text,
        licence=text,
        sources=(source,),
        labels={text: 1},
        settings={text: text},
        notes=(text,),
    )
    plain = replace(
        facts,
        title="t",
        description="t",
        licence="t",
        sources=(SourceNote("t", "t", "t", "t", 1),),
        labels={"t": 1},
        settings={"t": "t"},
        notes=("t",),
    )
    header, page = split_card(hostile_card(made, text, facts))
    expected, plain_page = split_card(hostile_card(made, "t", plain))
    assert header.keys() == expected.keys()
    assert header["configs"] == expected["configs"]
    structure, wanted = tokens_of(page), tokens_of(plain_page)
    entities = {"text", "text_special"}  # a reference is a token of its own
    assert [t for t in structure if t not in entities] == [t for t in wanted if t not in entities]
    assert not {"html_block", "html_inline"} & set(structure)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", page)


@pytest.mark.parametrize("text", HOSTILE)
def test_inert_text_reads_as_it_was(text: str) -> None:
    shown = "".join(
        child.content
        for token in MarkdownIt("commonmark").parse(inert(text))
        for child in token.children or ()
    )
    visible = "".join(char for char in " ".join(text.split()) if char.isprintable())
    assert shown.strip() == visible.strip()


def test_attribution_names_every_source() -> None:
    text = attribution([*FACTS.sources, SourceNote("<i>own</i>", "nifti", None, None, 3)])
    assert "Heller et al." in text
    assert "unknown: ask the owners before" in text
    assert "`<i>own</i>`" in text
    assert "html_inline" not in tokens_of(text)


def test_counts_know_the_plural() -> None:
    assert [counted(n, "case") for n in (0, 1, 2000)] == ["0 cases", "1 case", "2,000 cases"]
    assert [counted(n, "try", "tries") for n in (1, 2)] == ["1 try", "2 tries"]


def test_code_spans_hold_backticks() -> None:
    assert code("a`b") == "`` a`b ``"
    assert code("a|b") == "`a¦b`"
    assert code("") == "` `"


def test_many_cases_are_summed_up(made: tuple[Release, Summary]) -> None:
    summary = replace(made[1], by_case={f"case{n:03d}": 2 for n in range(100)})
    assert "| 60 more | 120 |" in dataset_card(made[0], summary, FACTS)
