"""What every mask kind, source layout, network and export keeps, whichever it is."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import contract
import numpy as np
import pytest
from conftest import make_tiny_case
from contract import LAYOUTS, MASKS, kinds_of, lender, mask_digest, section
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes
from orientations import read_in_all_ways

from synthct.errors import MaskError
from synthct.masks import MaskKind
from synthct.models import networks
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.methods import Diffusion
from synthct.models.network import Network
from synthct.models.painting import Inpainter
from synthct.models.patch import Patch, PatchRules
from synthct.publish.export.run import FORMATS, export
from synthct.sources import Source, download, index_sources, label_table, read_case
from synthct.volume.intensity import SOFT_TISSUE

GOLDEN = Path(__file__).parent / "golden/datasets/1.1.0"

of_every_mask = pytest.mark.parametrize("kind", kinds_of(MaskKind, "kind"))
of_every_layout = pytest.mark.parametrize("layout", kinds_of(Source, "layout"))
of_every_network = pytest.mark.parametrize(
    "network", networks.NETWORKS, ids=lambda network: network.__name__
)
of_every_export = pytest.mark.parametrize("kind", sorted(FORMATS))


def test_every_kind_and_layout_is_tried() -> None:
    assert kinds_of(MaskKind, "kind") == sorted(MASKS), "see contract.MASKS"
    assert kinds_of(Source, "layout") == sorted(LAYOUTS), "see contract.LAYOUTS"
    names = sorted(network.__name__ for network in networks.NETWORKS)
    assert names == sorted(contract.NETWORKS), "see contract.NETWORKS"


@of_every_mask
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_draw_is_json_and_replays_to_the_same_mask_on_the_grid(kind: str, seed: int) -> None:
    host, drawn = make_tiny_case(), section(kind)
    donor = lender(kind, host)
    params = drawn.draw(host, donor, np.random.default_rng(seed))
    mask = drawn.build(host, donor, params)
    again = drawn.build(make_tiny_case(), donor, json.loads(json.dumps(params, allow_nan=False)))
    assert again.box == mask.box
    assert np.array_equal(again.region.array, mask.region.array)
    assert json.dumps(mask.facts, allow_nan=False) == json.dumps(again.facts)
    whole = mask.in_host(host.labels.shape)
    assert whole.dtype == np.bool_
    assert whole.shape == host.labels.shape
    assert 0 < whole.sum() < whole.size
    np.testing.assert_allclose(mask.region.affine, host.labels.crop(mask.box).affine)
    assert np.array_equal(host.labels.array, make_tiny_case().labels.array), (
        "hosts stay as they are"
    )


@pytest.mark.long
@of_every_mask
def test_a_mask_does_not_depend_on_how_the_scan_was_stored(kind: str) -> None:
    host, drawn = make_tiny_case(), section(kind)
    donor = lender(kind, host)
    params = drawn.draw(host, donor, np.random.default_rng(3))
    expected = drawn.build(host, donor, params).in_host(host.labels.shape)
    for read in read_in_all_ways(host):
        assert drawn.draw(read, donor, np.random.default_rng(3)) == params
        assert np.array_equal(drawn.build(read, donor, params).in_host(expected.shape), expected)


@of_every_mask
def test_parameters_of_another_host_are_refused(kind: str) -> None:
    host, drawn = make_tiny_case(), section(kind)
    params = drawn.draw(host, lender(kind, host), np.random.default_rng(4))
    other = make_tiny_case("other")
    with pytest.raises(MaskError, match="tiny"):
        drawn.build(other, lender(kind, other), params)


@pytest.mark.long
def test_every_process_draws_the_same_masks() -> None:
    code = "import contract, sys; print(*(contract.mask_digest(kind, 5) for kind in sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *MASKS],
        cwd=Path(contract.__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [mask_digest(kind, 5) for kind in MASKS]


@of_every_layout
def test_a_source_gives_its_cases_in_order_on_one_grid_and_always_the_same(
    layout: str, tmp_path: Path
) -> None:
    given_ = {"hosts": contract.source(layout, tmp_path / "root")}
    sources = download(given_, tmp_path / "cache")
    first = index_sources(sources, ["kidney"], cache_dir=tmp_path / "cache").entries("hosts")
    again = index_sources(sources, ["kidney"], cache_dir=tmp_path / "other").entries("hosts")
    ids = [entry.case_id for entry in first]
    assert ids == sorted(set(ids))
    assert len(ids) == 2
    assert [facts(entry) for entry in again] == [facts(entry) for entry in first]
    for entry in first:
        case = read_case(entry, label_table(sources, ["kidney"]))
        scan = case.scan()
        assert scan.array.dtype == np.int16
        assert aff2axcodes(scan.affine) == ("R", "A", "S")
        assert case.labels.shape == scan.shape
        np.testing.assert_allclose(case.labels.affine, scan.affine, atol=1e-4)
        assert case.region("kidney").any()


def facts(entry: Any) -> tuple[Any, ...]:
    hashes = entry.image_sha256, entry.voxel_sha256, entry.label_sha256
    return (entry.case_id, entry.patient_id, *hashes, entry.shape, entry.affine.tolist())


@of_every_layout
def test_a_sources_section_survives_json(layout: str, tmp_path: Path) -> None:
    one = contract.source(layout, tmp_path)
    assert type(one).model_validate(one.model_dump(mode="json")) == one


def checkpoint_of(network: type[Network], folder: Path) -> Diffusion:
    """A tiny checkpoint of a kind, and how to paint with it."""
    settings = contract.NETWORKS[network.__name__](folder / "checkpoint")
    return Diffusion(checkpoint=str(folder / "checkpoint"), batch_size=2, **settings)


@of_every_network
def test_a_network_paints_the_mask_alone_and_by_its_seed_alone(
    network: type[Network], tmp_path: Path, one_thread: None
) -> None:
    inpaint = checkpoint_of(network, tmp_path)
    checkpoint = load_checkpoint(inpaint.checkpoint)
    rules = network.rules(checkpoint.files, inpaint, [None])
    patches = [random_patch(rules, seed) for seed in range(3)]
    inpainter = Inpainter(checkpoint, inpaint, rules.labels)
    painted = inpainter.paint(patches, [5, 6, 7])
    again = inpainter.paint(patches[::-1], [7, 6, 5])[::-1]
    other = inpainter.paint(patches, [15, 16, 17])
    for patch, one, same, differs in zip(patches, painted, again, other, strict=True):
        assert one.dtype == np.float32
        assert one.shape == patch.image.shape
        assert np.abs(one).max() <= 1
        assert np.array_equal(one[~patch.mask], patch.image[~patch.mask])
        assert one.tobytes() == same.tobytes()
        assert not np.array_equal(one, differs)


def random_patch(rules: PatchRules, seed: int) -> Patch:
    size, rng = rules.patch_sizes[0], np.random.default_rng(seed)
    sides = (size, size) if rules.depth == 1 else (size, size, rules.depth)
    image = rng.uniform(-1, 1, sides).astype(np.float32)
    mask = np.zeros(sides, dtype=bool)
    mask[5:12, 2 + seed : 9 + seed] = True
    spacing, start, scale = (0.8, 0.8, 2.5), (0, 0, 0), (1.0, 1.0, 1.0)
    n = len(sides)
    return Patch(image, mask, mask, 0, SOFT_TISSUE, spacing[:n], start[:n], scale[:n])


@of_every_network
def test_a_network_is_known_from_its_files_and_named_in_what_a_dataset_says(
    network: type[Network], tmp_path: Path
) -> None:
    inpaint = checkpoint_of(network, tmp_path)
    files = find_checkpoint(inpaint.checkpoint)
    assert files.network is network
    assert list(network.misfits(files, inpaint, [None])) == []
    assert network.rules(files, inpaint, [None]).patch_sizes
    assert all(network.words)
    assert all(version(name) for name in (*network.packages, *network.numeric_packages))


@of_every_export
def test_an_export_lists_every_sample_with_files_that_are_there(kind: str, tmp_path: Path) -> None:
    folder = export(GOLDEN, kind, tmp_path / "plain")
    listed = (folder / "samples.csv").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 1 + 2
    for split in ("train", "test"):
        files = [path for path in (folder / split).rglob("*") if path.is_file()]
        assert (folder / split / "metadata.parquet") in files
        assert len(files) > 1
