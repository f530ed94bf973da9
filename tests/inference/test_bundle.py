"""The bundle: whole and of this version, or refused with one sentence."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.errors import BundleError
from batchdigits.inference import bundle
from batchdigits.inference.bundle import FORMAT, PACKAGED, Bundle, Network, load, packed, save
from batchdigits.inference.decisions import EVIDENCE
from batchdigits.inference.thresholds import Calibration, Domain, DoubtCounts, Slope, ThresholdCounts
from batchdigits.settings import DecodingSettings, NormalisationSettings, Runtime
from tests.fake_model import bundle_in

NORMALISATION = NormalisationSettings()
WEIGHTS = bytes(range(256))


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return bundle_in(tmp_path / "bundle", weights=WEIGHTS)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose tests put back what they change."""
    return bundle_in(tmp_path_factory.mktemp("kept") / "bundle", weights=WEIGHTS)


def card(made: Bundle) -> Path:
    return made.directory / "bundle.json"


def refusal(made: Bundle) -> str:
    with pytest.raises(BundleError) as caught:
        load(made.directory)
    message = str(caught.value)
    assert str(made.directory) in message
    assert message.endswith("name a whole bundle with --model.")
    assert "\n" not in message
    return message


def rewritten(made: Bundle, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
    """Change the card and, as another version of this program would, write a sum that fits."""
    content = json.loads(card(made).read_text())
    del content["id"]
    change(content)
    identity = bundle._id(content) if sign else "ab" * 32
    card(made).write_text(json.dumps({"id": identity, **content}))


# ---- whole ----------------------------------------------------------------------------------------------------


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=3)
    ),
    max_leaves=12,
)
normalisations = st.builds(
    NormalisationSettings, digit_side=st.integers(1, 28), ink_level=st.floats(0.01, 1), part_mass=st.floats(0, 1)
)

counts = st.integers(0, 10**9)
calibrations = st.builds(
    Calibration,
    temperature=st.floats(0.01, 100),
    gate=st.floats(0, 1),
    slopes=st.just(()) | st.tuples(*[st.builds(Slope, st.floats(-9, 9), st.floats(-9, 9))] * len(EVIDENCE)),
    domains=st.lists(
        st.builds(
            Domain,
            name=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            digits=counts,
            risks=st.tuples(st.builds(ThresholdCounts, st.just(0.9), counts, counts)),
            doubts=st.tuples(*[st.builds(DoubtCounts, st.just(doubt), counts, counts) for doubt in (0.001, 0.002)]),
        )
    ).map(tuple),
    reference=st.just(()) | st.tuples(st.integers(1, 10**9), *[st.integers(0, 10**9)] * 9),
)


@settings(max_examples=50, deadline=None)
@given(
    normalisation=normalisations,
    calibration=calibrations,
    provenance=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_values, max_size=4),
    weights=st.binary(max_size=50),
)
def test_any_bundle_comes_back_as_it_was_saved(
    kept: Bundle,
    normalisation: NormalisationSettings,
    calibration: Calibration,
    provenance: dict[str, Any],
    weights: bytes,
) -> None:
    directory = kept.directory.with_name("any")
    directory.mkdir(exist_ok=True)
    (directory / "model.keras").write_bytes(weights)
    (directory / "finder.keras").write_bytes(weights[::-1])
    saved = save(directory, normalisation=normalisation, calibration=calibration, provenance=provenance)
    again = load(directory)
    assert saved == again
    assert (again.normalisation, again.calibration, again.provenance) == (normalisation, calibration, provenance)
    assert (again.directory, again.weights.read_bytes()) == (directory, weights)
    assert again.files == {"model.keras", "finder.keras"}
    assert len(again.id) == 64
    assert set(again.id) <= set("0123456789abcdef")


def test_a_copy_of_a_bundle_is_the_same_bundle(made: Bundle, tmp_path: Path) -> None:
    copy = load(shutil.copytree(made.directory, tmp_path / "copy"))
    assert replace(copy, directory=made.directory) == made


def test_the_same_content_has_the_same_id_and_any_other_content_another(tmp_path: Path) -> None:
    def made(name: str, **changes: Any) -> str:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "model.keras").write_bytes(changes.pop("weights", b"w"))
        (directory / "finder.keras").write_bytes(changes.pop("finder", b"f"))
        content = {"normalisation": NORMALISATION, "calibration": Calibration(1.0, 1.0), "provenance": {"seed": 1}}
        return save(directory, **{**content, **changes}).id

    same = {made("a"), made("b")}
    assert len(same) == 1
    others = [
        made("c", weights=b"W"),
        made("j", finder=b"F"),
        made("k", weights=b"f", finder=b"w"),
        made("d", calibration=Calibration(1.5, 1.0)),
        made("g", calibration=Calibration(1.0, 0.5)),
        made("h", calibration=Calibration(1.0, 1.0, domains=(Domain("a", 10, (ThresholdCounts(0.9, 10, 1),)),))),
        made("l", calibration=Calibration(1.0, 1.0, domains=(Domain("b", 10, (ThresholdCounts(0.9, 10, 1),)),))),
        made("m", calibration=Calibration(1.0, 1.0, slopes=(Slope(0.0, 1.0),) * len(EVIDENCE))),
        made("i", calibration=Calibration(1.0, 1.0, reference=(1, 2, *range(8)))),
        made("e", provenance={"seed": 2}),
        made("f", provenance={"seed": 1, "more": None}),
    ]
    for number, field in enumerate(fields(NormalisationSettings)):
        value = getattr(NORMALISATION, field.name)
        others.append(
            made(
                f"n{number}",
                normalisation=replace(
                    NORMALISATION, **{field.name: value + 1 if isinstance(value, int) else value / 2}
                ),
            )
        )
    assert len({*same, *others}) == 1 + len(others)


def test_the_id_does_not_hang_on_how_the_card_is_spelled(made: Bundle) -> None:
    content = json.loads(card(made).read_text())
    card(made).write_text(json.dumps(dict(reversed(content.items())), indent=None))
    assert load(made.directory) == made


def test_the_card_is_json_that_people_can_read(made: Bundle) -> None:
    text = card(made).read_text(encoding="utf-8")
    assert "made — here" in text
    assert text.endswith("}\n")
    content = json.loads(text)
    assert content["format"] == FORMAT
    assert content["versions"] == {
        "decoding": DecodingSettings.VERSION,
        "normalisation": NormalisationSettings.VERSION,
        "asking": bundle.ASKING,
    }


def test_the_bundle_of_the_package_loads_without_a_name() -> None:
    packaged = load()
    assert packaged == load(PACKAGED)
    assert packaged.weights.is_file()
    assert packaged.calibration.temperature > 0


def test_saving_again_replaces_the_card_and_leaves_nothing_beside_it(made: Bundle) -> None:
    again = save(made.directory, normalisation=NORMALISATION, calibration=Calibration(2.0, 1.0), provenance={})
    assert again.calibration == load(made.directory).calibration == Calibration(2.0, 1.0)
    assert again.id != made.id
    assert sorted(path.name for path in made.directory.iterdir()) == ["bundle.json", "finder.keras", "model.keras"]


def test_a_bundle_cannot_be_changed(made: Bundle) -> None:
    with pytest.raises(FrozenInstanceError):
        made.id = "2"  # type: ignore[misc]


@pytest.mark.parametrize(("there", "missing"), [("model", "finder"), ("finder", "model")])
def test_a_bundle_that_was_saved_without_one_of_its_networks_is_refused(
    tmp_path: Path, there: str, missing: str
) -> None:
    (tmp_path / f"{there}.keras").write_bytes(WEIGHTS)
    with pytest.raises(BundleError, match=rf"lacks or garbles '{missing}\.keras'"):
        save(tmp_path, normalisation=NORMALISATION, calibration=Calibration(1.0, 1.0), provenance={})


# ---- damaged --------------------------------------------------------------------------------------------------


def assert_refused_or_the_same(kept: Bundle, damaged: bytes) -> bool:
    """Assert that a changed card is refused, unless JSON says that it means the same: space between its tokens."""
    original = card(kept).read_bytes()
    card(kept).write_bytes(damaged)
    try:
        found = load(kept.directory)
    except BundleError:
        return True
    else:
        assert found == kept
        assert json.loads(damaged) == json.loads(original)
        return False
    finally:
        card(kept).write_bytes(original)


@pytest.mark.parametrize("bit", [0, 5])
def test_no_damaged_byte_of_the_card_goes_unnoticed(kept: Bundle, bit: int) -> None:
    original = card(kept).read_bytes()
    noticed = 0
    for at in range(len(original)):
        damaged = bytearray(original)
        damaged[at] ^= 1 << bit
        noticed += assert_refused_or_the_same(kept, bytes(damaged))
    assert noticed >= 0.99 * len(original)  # an exponent may be E or e; JSON leaves little else open


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_changed_byte_of_the_card_is_refused_or_means_the_same(kept: Bundle, data: st.DataObject) -> None:
    damaged = bytearray(card(kept).read_bytes())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != damaged[at]))
    assert_refused_or_the_same(kept, bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_card_that_lost_or_gained_bytes_is_refused_or_means_the_same(kept: Bundle, data: st.DataObject) -> None:
    original = card(kept).read_bytes()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(original))] * 2)))
    assert_refused_or_the_same(kept, original[:start] + data.draw(st.binary(max_size=3)) + original[end:])


@pytest.mark.parametrize("network", ["model", "finder"])
def test_a_damaged_byte_of_a_network_is_refused_wherever_it_is(kept: Bundle, network: str) -> None:
    path = kept.directory / f"{network}.keras"
    original = path.read_bytes()
    for at in range(len(original)):
        damaged = bytearray(original)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=rf"damaged: {network}\.keras does not match its sha256"):
            load(kept.directory)
    path.write_bytes(original)
    assert load(kept.directory) == kept


@pytest.mark.parametrize("weights", [b"", WEIGHTS[:-1], WEIGHTS + b"\0"])
def test_weights_of_another_length_are_refused(made: Bundle, weights: bytes) -> None:
    made.weights.write_bytes(weights)
    assert "model.keras does not match" in refusal(made)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot be read: No such file or directory: bundle\.json"):
        load(tmp_path / "nothing")


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(WEIGHTS)
    with pytest.raises(BundleError, match="Not a directory"):
        load(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["bundle.json", "model.keras", "finder.keras"])
def test_a_missing_file_is_refused(made: Bundle, name: str) -> None:
    (made.directory / name).unlink()
    assert name in refusal(made)


@pytest.mark.parametrize("name", ["bundle.json", "model.keras", "finder.keras"])
def test_a_folder_in_place_of_a_file_is_refused(made: Bundle, name: str) -> None:
    (made.directory / name).unlink()
    (made.directory / name).mkdir()
    assert name in refusal(made)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["bundle.json", "model.keras", "finder.keras"])
def test_a_file_without_permission_is_refused(made: Bundle, name: str) -> None:
    (made.directory / name).chmod(0)
    assert name in refusal(made)


@pytest.mark.parametrize(
    "content", [b"", b"no JSON", b"{", b'{"format": 1', b"\xff\xfe\x00", b"\x80", b"[" * 100_000, b"1" * 5000]
)
def test_a_card_that_is_no_json_is_refused(made: Bundle, content: bytes) -> None:
    card(made).write_bytes(content)
    assert "damaged" in refusal(made)


@pytest.mark.parametrize("content", ["[]", "1", "null", '"format"'])
def test_a_card_that_holds_no_object_is_refused(made: Bundle, content: str) -> None:
    card(made).write_text(content)
    assert "holds no object" in refusal(made)


@pytest.mark.parametrize("found", [0, 1, "2", None])
def test_another_format_is_refused(made: Bundle, found: object) -> None:
    rewritten(made, lambda content: content.update(format=found))
    assert f"has format {found}, expected {FORMAT}" in refusal(made)


def test_a_card_of_another_format_is_refused_whatever_else_it_holds(made: Bundle) -> None:
    card(made).write_text('{"format": 99}')
    assert "has format 99" in refusal(made)


@pytest.mark.parametrize("part", ["decoding", "normalisation", "asking"])
def test_a_bundle_made_for_another_version_is_refused(made: Bundle, part: str) -> None:
    rewritten(made, lambda content: content["versions"].update({part: 99}))
    assert "was made for" in refusal(made)


def test_a_bundle_of_another_version_is_not_called_damaged_where_its_settings_are_unknown(made: Bundle) -> None:
    def change(content: dict[str, Any]) -> None:
        content["versions"]["normalisation"] = 99
        content["normalisation"]["a_setting_of_that_version"] = 1

    rewritten(made, change)
    assert "was made for" in refusal(made)
    assert "damaged" not in refusal(made)


@pytest.mark.parametrize("settings", [DecodingSettings, NormalisationSettings])
def test_a_program_of_another_version_refuses_the_bundle(
    made: Bundle, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "VERSION", settings.VERSION + 1)
    assert "was made for" in refusal(made)


@pytest.mark.parametrize("key", ["versions", "files", "normalisation", "calibration", "provenance"])
def test_a_card_that_lacks_a_part_is_refused(made: Bundle, key: str) -> None:
    rewritten(made, lambda content: content.pop(key))
    assert "damaged" in refusal(made)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalisation", {"unknown": 1}),
        ("normalisation", None),
        ("calibration", {}),
        ("calibration", {"temperature": "hot", "gate": 1.0}),
        ("calibration", {"temperature": 1.0}),
        ("calibration", []),
        ("calibration", {"temperature": 1.0, "gate": 1.0, "slopes": [[1]], "domains": [], "reference": []}),
        ("provenance", 5),
        ("files", None),
        ("files", {}),
        ("files", {"model.keras": "ab" * 32}),
        ("files", {"finder.keras": "ab" * 32}),
        ("files", {"model.keras": "ab" * 32, "finder.keras": "ab" * 32, "../other": "ab" * 32}),
    ],
)
def test_a_card_with_a_garbled_part_is_refused(made: Bundle, key: str, value: object) -> None:
    rewritten(made, lambda content: content.update({key: value}))
    assert "damaged" in refusal(made)


def test_a_card_whose_domains_have_other_limits_is_refused(made: Bundle) -> None:
    def change(content: dict[str, Any]) -> None:
        content["calibration"]["domains"] = [
            {"name": name, "digits": 9, "risks": [[limit, 9, 0]], "doubts": []}
            for name, limit in (("a", 0.9), ("b", 1))
        ]

    rewritten(made, change)
    assert "lacks or garbles domains, whose limits differ" in refusal(made)


def test_a_card_without_its_id_is_refused(made: Bundle) -> None:
    content = json.loads(card(made).read_text())
    del content["id"]
    card(made).write_text(json.dumps(content))
    assert "damaged" in refusal(made)


def test_a_card_with_more_in_it_than_was_signed_is_refused(made: Bundle) -> None:
    rewritten(made, lambda content: content.update(more=1), sign=False)
    assert "bundle.json does not match its sha256" in refusal(made)


def test_a_name_with_a_newline_is_shown_escaped(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no\\x0asuch") as caught:
        load(tmp_path / "no\nsuch")
    assert "\n" not in str(caught.value)


# ---- the networks' files for the fast runtime -------------------------------------------------------------------


FAST = ["model.tflite", "finder.tflite"]


def test_what_the_fast_runtime_reads_belongs_to_the_bundle_where_it_is(made: Bundle, tmp_path: Path) -> None:
    both = bundle_in(tmp_path / "both", weights=WEIGHTS, exported=b"fast", exported_finder=b"too")
    assert (made.is_exported, both.is_exported) == (False, True)
    assert both.files == made.files | set(FAST)
    assert both.id != made.id
    assert load(both.directory) == both
    other = bundle_in(tmp_path / "other", weights=WEIGHTS, exported=b"fast", exported_finder=b"two")
    assert other.id != both.id


@pytest.mark.parametrize("exported", [{"exported": b"fast"}, {"exported_finder": b"fast"}])
def test_a_bundle_is_exported_where_both_of_its_networks_are(tmp_path: Path, exported: dict[str, bytes]) -> None:
    assert not bundle_in(tmp_path / "half", **exported).is_exported  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("content", [b"fasT", b"", b"faster", None])
def test_a_damaged_file_of_the_fast_runtime_is_refused(tmp_path: Path, content: bytes | None, name: str) -> None:
    both = bundle_in(tmp_path / "both", exported=b"fast", exported_finder=b"fast")
    (both.directory / name).unlink()
    if content is not None:
        (both.directory / name).write_bytes(content)
    assert name in refusal(both)


@pytest.mark.parametrize("name", FAST)
def test_a_file_that_the_card_does_not_name_is_no_part_of_the_bundle(made: Bundle, name: str) -> None:
    (made.directory / name).write_bytes(b"slipped in")
    assert load(made.directory) == made
    assert name not in load(made.directory).files


def test_the_bundle_of_the_package_has_all_networks_for_both_runtimes() -> None:
    assert load().is_exported
    assert load().files == {"model.keras", "finder.keras", "teacher.keras", "teacher.tflite", *FAST}
    assert set(packed(load())) == {"bundle.json", *load().files}


def test_a_bundle_that_is_packed_and_unpacked_is_the_same(made: Bundle, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, content in packed(made).items():
        (tmp_path / "there" / name).write_bytes(content)
    assert replace(load(tmp_path / "there"), directory=made.directory) == made


@pytest.mark.parametrize(
    ("network", "runtime", "name"),
    [
        (Network.FINDER, Runtime.KERAS, "finder.keras"),
        (Network.READER, Runtime.LITERT, "model.tflite"),
    ],
)
def test_a_network_names_its_file_for_each_runtime(network: Network, runtime: Runtime, name: str) -> None:
    assert network.file(runtime) == name


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        *(("calibration", "temperature", value) for value in (0, -1, 1e-300, 1e300, float("nan"), "1", True, None, [])),
        *(("calibration", "gate", value) for value in (-0.1, 1.1, float("inf"), {})),
        *(("calibration", "reference", [value]) for value in (float("inf"), -1, 10**400, "5")),
        *(("calibration", "reference", value) for value in ([1, 2], [0] * 10)),
        *(("calibration", "slopes", [[0.0, 1.0]] * count) for count in (1, 6, 8)),
        *(("calibration", "risks", [[0.9, value, 0]]) for value in (float("nan"), -5, -5.0, 10**400, float("inf"))),
        *(("normalisation", "digit_side", value) for value in (0, 29, 20.5, "20", 10**30)),
        *(("normalisation", "flat_share", value) for value in (float("nan"), -1, 2, "x", [[]])),
        *(("normalisation", "ink_level", value) for value in (0, -1)),
    ],
)
def test_absurd_numbers_are_damage(made: Bundle, part: str, name: str, value: object) -> None:
    rewritten(made, lambda content: content[part].update({name: value}))
    assert "lacks or garbles" in refusal(made)


@pytest.mark.parametrize("key", ["format", "versions"])
def test_no_escape_sequence_of_a_card_reaches_a_terminal(made: Bundle, key: str) -> None:
    rewritten(made, lambda content: content.update({key: "3\x1b[2J\n\u202e" + 500 * "x"}))
    message = refusal(made)
    assert r"3\x1b[2J\x0a\u202e" in message
    assert len(message) < 600


def test_a_pipe_in_the_place_of_a_bundles_file_is_not_waited_for(made: Bundle) -> None:
    for name in ("model.keras", "bundle.json"):
        (made.directory / name).unlink()
        os.mkfifo(made.directory / name)
        assert "pipe" in refusal(made)
