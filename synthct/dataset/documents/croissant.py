"""``croissant.json``: what a dataset holds, for machines (MLCommons Croissant 1.1, with RAI).

Says the same as the card and the manifest; nothing of it is new. What it was made of is in
PROV-O, what its licence allows in DUO and ODRL, as section "Responsible AI and Governance" of the
specification has it. When it was published is left
out, since nothing in a dataset depends on time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from synthct.dataset.documents.card import CardFacts
from synthct.dataset.manifest import Release
from synthct.dataset.summary import Summary
from synthct.dataset.writer import ShardRecord
from synthct.errors import counted
from synthct.licence import licence_url, terms_of

CROISSANT = "croissant.json"

#: Of the Data Use Ontology (http://purl.obolibrary.org/obo/duo.owl).
_OBO = "http://purl.obolibrary.org/obo/"
_NO_RESTRICTION = "DUO_0000004", "no restriction"
_NON_COMMERCIAL = "DUO_0000046", "non-commercial use only"

#: What columns are beside their type.
_ROLES = {"mask": ["cr:SegmentationMask"], "label_map": ["cr:SegmentationMask", "cr:Label"]}

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "cc": "http://creativecommons.org/ns#",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(
    release: Release,
    summary: Summary,
    facts: CardFacts,
    schema: pa.Schema,
    shards: Sequence[ShardRecord],
) -> bytes:
    """The content of ``croissant.json``.

    Args:
        release: What the version is.
        summary: What it holds.
        facts: What its card says.
        schema: The columns of its shards.
        shards: All of them, in the order of the plan.
    """
    splits = [split.name for split in release.splits if split.rows]
    owed = [source.attribution for source in facts.sources if source.attribution]
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": release.name,
        "version": release.version,
        "description": facts.description or _description(summary, facts),
        "license": licence_url(facts.licence) or facts.licence or "unknown",
        "url": f"urn:synthct:{release.content_id}",
        "citeAs": "; ".join(owed) or "No attribution is asked for.",
        "isLiveDataset": False,
        "keywords": ["CT", "medical imaging", "synthetic", "inpainting", facts.method],
        **_usage(facts.licence),
        **_provenance(release, facts),
        **_responsible(release, summary, facts),
        "distribution": [*(_file(shard) for shard in shards), *(_files(one) for one in splits)],
        "recordSet": [_records(split, schema) for split in splits],
    }
    return spelt(content)


def spelt(content: Mapping[str, Any]) -> bytes:
    """The one text that is written for some content."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _description(summary: Summary, facts: CardFacts) -> str:
    one = "CT volume" if facts.view == "volume" else f"{facts.view} CT slice"
    return (
        f"{counted(summary.samples, one)} of {counted(summary.hosts, 'patient')}, in which regions "
        "were painted anew, with masks and label maps."
    )


def _usage(licence: str | None) -> dict[str, Any]:
    """What the licence allows and asks for; nothing where that is not known.

    Terms of the Data Use Ontology for the purpose, an offer in ODRL for the rest.
    """
    terms = terms_of(licence)
    if terms is None:
        return {}
    code, name = _NO_RESTRICTION if not terms.non_commercial else _NON_COMMERCIAL
    duties = ["odrl:attribute"] * terms.attribution + ["cc:ShareAlike"] * terms.share_alike
    actions = ["odrl:use", "odrl:distribute", *([] if terms.no_derivatives else ["odrl:derive"])]
    offer: dict[str, Any] = {
        "@type": ["CreativeWork", "odrl:Offer"],
        "name": f"What {licence} allows",
        "odrl:permission": {
            "@type": "odrl:Permission",
            "odrl:action": [{"@id": action} for action in actions],
            "odrl:duty": [
                {"@type": "odrl:Duty", "odrl:action": {"@id": action}} for action in duties
            ],
        },
    }
    if terms.non_commercial:
        forbidden = {"@id": "cc:CommercialUse"}
        offer["odrl:prohibition"] = {"@type": "odrl:Prohibition", "odrl:action": forbidden}
    term = {"@type": "DefinedTerm", "name": name, "termCode": code, "url": f"{_OBO}{code}"}
    return {"usageInfo": [term, offer]}


def _provenance(release: Release, facts: CardFacts) -> dict[str, Any]:
    """Sources, checkpoint and software in PROV-O; single samples have it in their column."""
    sources = [
        {
            "@type": "prov:Entity",
            "@id": f"urn:synthct:{release.content_id}:source:{quote(source.name)}",
            "prov:label": f"{source.cases} cases of '{source.name}', layout {source.layout}",
            "license": licence_url(source.licence) or source.licence or "unknown",
            **({"prov:atLocation": f"hf://datasets/{source.origin}"} if source.origin else {}),
        }
        for source in facts.sources
    ]
    checkpoint = facts.settings.get("id")
    used = {"prov:used": {"@id": f"urn:synthct:checkpoint:{checkpoint}"}} if checkpoint else {}
    return {
        "prov:wasDerivedFrom": sources,
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "@id": f"urn:synthct:plan:{release.plan_id}",
            "prov:label": f"Painting by '{facts.method}'",
            **used,
            "prov:wasAssociatedWith": {
                "@type": "prov:SoftwareAgent",
                "prov:label": f"synthct {release.package_version}",
            },
        },
    }


def _responsible(release: Release, summary: Summary, facts: CardFacts) -> dict[str, str]:
    """The fields of Croissant's vocabulary for responsible AI that are known here."""
    inside = "Inside of the masks the pictures are synthetic"
    real = any(source.layout != "phantom" for source in facts.sources)
    if not real:
        sensitive = "None: all scans are procedural phantoms."
    elif release.patch_id is None:
        sensitive = f"{inside}; outside every voxel is a real patient's. Not anonymous."
    else:
        sensitive = f"{inside}; nothing of the scans is included, but masks and places are real."
    return {
        "rai:dataCollection": (
            "Masks were drawn on existing CT scans and painted by "
            f"'{facts.method}'; synthct.lock names every scan and checkpoint by hash."
        ),
        "rai:dataManipulationProtocol": (
            "Only voxels inside of the masks were changed, which was checked for every sample."
        ),
        "rai:dataLimitations": (
            "What was painted is plausible, not true. Several samples show the same patient: "
            "split by patient_id. Not for diagnosis."
        ),
        "rai:dataBiases": (
            f"{summary.hosts} host patients and {summary.donors} donor patients; what the sources "
            "lack, this lacks too."
        ),
        "rai:dataUseCases": "Training and testing of segmentation and detection in CT.",
        "rai:personalSensitiveInformation": sensitive,
    }


def _file(shard: ShardRecord) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": shard.path,
        "name": shard.path,
        "contentUrl": shard.path,
        "contentSize": f"{shard.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": shard.sha256,
    }


def _files(split: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-files",
        "name": f"{split}-files",
        "includes": f"data/{split}-*.parquet",
        "encodingFormat": "application/x-parquet",
    }


def _records(split: str, schema: pa.Schema) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "key": {"@id": f"{split}/sample_id"},
        "field": [_field(split, field) for field in schema],
    }


def _field(split: str, field: pa.Field) -> dict[str, Any]:
    data_type, more = _type_of(field.type)
    roles = _ROLES.get(field.name, [])
    extract: dict[str, Any] = {"column": field.name}
    source: dict[str, Any] = {"fileSet": {"@id": f"{split}-files"}, "extract": extract}
    if data_type == "sc:ImageObject":
        source["transform"] = {"jsonPath": "bytes"}
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{field.name}",
        "name": field.name,
        "dataType": [*roles, data_type] if roles else data_type,
        "source": source,
        **more,
    }


def _type_of(type_: pa.DataType) -> tuple[str, Mapping[str, Any]]:
    if isinstance(type_, pa.BaseExtensionType):
        return "sc:Text", {}
    if pa.types.is_struct(type_):
        return "sc:ImageObject", {}
    if pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_):
        inner, _ = _type_of(type_.value_type)
        return inner, {"isArray": True, "arrayShape": str(type_.list_size)}
    if pa.types.is_boolean(type_):
        return "sc:Boolean", {}
    if pa.types.is_integer(type_):
        return "sc:Integer", {}
    return ("sc:Float" if pa.types.is_floating(type_) else "sc:Text"), {}
