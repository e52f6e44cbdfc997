"""Broken or hostile files in PASCAL VOC's layout: one sentence for each fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from bgaug_d2.data.voc import load_voc
from bgaug_d2.errors import AnnotationError, DatasetError
from tests.helpers.data_trees import trainval, voc_masks, voc_xml, write_voc


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_voc(tmp_path)
    return tmp_path


def xml_of(root: Path, image_id: str = "000001") -> Path:
    return root / "VOC2007" / "Annotations" / f"{image_id}.xml"


def test_missing_pictures_are_counted(tree: Path) -> None:
    (tree / "VOC2007/JPEGImages/000002.jpg").unlink()
    with pytest.raises(DatasetError, match="1 images .* the first is '000002.jpg'"):
        load_voc(trainval(tree))
    assert len(load_voc(trainval(tree, max_images=1))) == 1
    xml_of(tree).unlink()
    with pytest.raises(DatasetError, match="000001.xml cannot be read"):
        load_voc(trainval(tree, max_images=1))


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    write_voc(tmp_path / "root")
    for path in (
        xml_of(tmp_path / "root"),
        tmp_path / "root/VOC2007/SegmentationObject/000001.png",
    ):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        with pytest.raises(DatasetError, match="outside the data set's root"):
            load_voc(trainval(tmp_path / "root"))
        path.unlink()
        (tmp_path / path.name).rename(path)


BOMB = (
    '<!DOCTYPE a [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)
XML_FAULTS = {
    "billion laughs": (BOMB + voc_xml([("&l9;", (1, 1, 5, 5))]), "document type"),
    "external entity": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "document type",
    ),
    "bare doctype": ("<!DOCTYPE annotation>" + voc_xml([]), "document type"),
    "undefined entity": ("<annotation>&x;</annotation>", "no valid XML"),
    "cut off": (voc_xml([])[:50], "no valid XML"),
    "empty": ("", "no valid XML"),
    "large": ("<annotation>" + " " * (1 << 20) + "</annotation>", "larger than"),
    "encoding": ('<?xml version="1.0" encoding="nonsense"?>' + voc_xml([]), "encoding"),
    "no size": ("<annotation/>", "height is ''"),
    "size text": (voc_xml([]).replace(">60<", ">x<"), "height is 'x'"),
    "size zero": (voc_xml([]).replace(">80<", ">0<"), "width is '0'"),
    "size bomb": (voc_xml([]).replace(">80<", ">100000<"), "width is '100000'"),
    "size digits": (voc_xml([]).replace(">80<", ">" + "9" * 5000 + "<"), "width is '9"),
}


@pytest.mark.parametrize("fault", XML_FAULTS)
def test_broken_xml_is_one_sentence(tree: Path, fault: str) -> None:
    text, match = XML_FAULTS[fault]
    xml_of(tree).write_text(text)
    with pytest.raises(DatasetError, match=match) as caught:
        load_voc(trainval(tree))
    assert str(xml_of(tree)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_bomb_in_another_encoding_is_refused_too(tree: Path, encoding: str) -> None:
    xml_of(tree).write_bytes((BOMB + voc_xml([])).encode(encoding))
    with pytest.raises(DatasetError, match="document type"):
        load_voc(trainval(tree))


def test_deep_xml_does_no_harm(tree: Path) -> None:
    depth = 140_000
    xml_of(tree).write_text("<a>" * depth + "</a>" * depth)
    with pytest.raises(DatasetError, match="height is ''"):
        load_voc(trainval(tree))


@pytest.mark.parametrize(
    ("name", "box", "match"),
    [
        ("unicorn", (1, 1, 5, 5), "'unicorn' is none of VOC's classes"),
        ("", (1, 1, 5, 5), "'' is none"),
        ("dog", ("nan", 1, 5, 5), "not finite"),
        ("dog", (1, 1, "inf", 5), "not finite"),
        ("dog", (1, 1, "x", 5), "could not convert"),
        ("dog", (1, 1, "", 5), "could not convert"),
        ("dog", (6, 1, 5, 5), "is empty"),
        ("dog", (1, 1, 500, 5), "not inside the image"),
        ("dog", (-9, 1, 5, 5), "not inside the image"),
    ],
)
def test_a_broken_object_is_named(tree: Path, name: str, box: tuple, match: str) -> None:
    xml_of(tree).write_text(voc_xml([("cat", (1, 1, 4, 4)), (name, box)]))
    with pytest.raises(AnnotationError, match=f"image 000001, annotation 2: .*{match}") as caught:
        load_voc(trainval(tree))
    assert "\n" not in str(caught.value)


def test_fields_that_only_the_evaluation_needs(tree: Path) -> None:
    text = xml_of(tree).read_text()
    for part, match in (("pose", "no <pose>"), ("truncated", "''"), ("difficult", "''")):
        xml_of(tree).write_text(re.sub(f"<{part}>.*?</{part}>", "", text))
        assert len(load_voc(trainval(tree))) == 2
        with pytest.raises(AnnotationError, match=match):
            load_voc(trainval(tree, evaluated=True))
    xml_of(tree).write_text(text.replace(">11<", ">11.5<"))
    assert load_voc(trainval(tree))[0]["annotations"][0]["bbox"][0] == 10.5
    with pytest.raises(AnnotationError, match="'11.5' is no whole number.*max_test_images"):
        load_voc(trainval(tree, evaluated=True))


def test_broken_mask_files(tree: Path) -> None:
    path = tree / "VOC2007/SegmentationObject/000001.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match="cannot be decoded"):
        load_voc(trainval(tree))
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be decoded"):
        load_voc(trainval(tree))
    Image.fromarray(voc_masks()[:, :-1]).save(path)
    with pytest.raises(DatasetError, match="expected a palette picture"):
        load_voc(trainval(tree))
    Image.fromarray(voc_masks()).convert("RGB").save(path)
    with pytest.raises(DatasetError, match="a RGB picture"):
        load_voc(trainval(tree))
    Image.fromarray(voc_masks()).save(path, format="GIF")
    with pytest.raises(DatasetError, match="cannot be decoded"):
        load_voc(trainval(tree))
