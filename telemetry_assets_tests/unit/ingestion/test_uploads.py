"""An upload's bytes: every document becomes either a Bronze row or a rejection, whatever its content."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings

from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets.ingestion.parsing.json_scan import MAX_DOCUMENT_CHARACTERS
from telemetry_assets_tests.harness.made_documents import FRAMINGS, UPLOADS, Document, event, framed, vehicle
from telemetry_assets_tests.harness.parsed_uploads import LIMIT, parsed

GOOD = json.dumps(event())
LARGE = Limits(content_bytes=256 * 1024 * 1024, documents=1_000_000)
PRETTY_VEHICLE = json.dumps(
    vehicle(static={"Model": "HB20", "year": 2024}, trip={"tripMileage": 12.5, "tripFuelLiters": 1}), indent=2
)


def outcome(name: str, content: bytes | str) -> tuple[int, list[tuple[int | None, str]]]:
    result = parsed(name, content)
    return len(result.rows), [(one.position, one.reason) for one in result.rejections]


@pytest.mark.parametrize(
    "name", ["x.json", "x.jsonl", "x.ndjson", "x.json.gz", "x.JSON", "x.NdJson", "x.JSONL.GZ", "x.Json.gz"]
)
@pytest.mark.parametrize("compress", [bytes, lambda content: gzip.compress(content, mtime=0)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_compression_and_encoding_are_those_of_the_content(
    name: str, compress: Callable[[bytes], bytes], encoding: str
) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    content = compress(f"{mark}{GOOD}\n{GOOD}".encode(encoding))
    assert [row.payload for row in parsed(name, content).rows] == [GOOD, GOOD]


@pytest.mark.parametrize("between", ["", " ", "\n", "\r\n", "\n\n", "\t", "\x1e", "\n\x1e", " \x1e\x1e "])
@pytest.mark.parametrize("text", [GOOD, json.dumps(event("CAR-é"), indent=4, ensure_ascii=False)])
def test_objects_one_after_another_are_documents_whatever_is_between_them(between: str, text: str) -> None:
    result = parsed("x.json", between.join([between, text, text, text, between]))
    assert [(row.payload, row.position) for row in result.rows] == [(text, 0), (text, 1), (text, 2)]
    assert result.rejections == []


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_framing_gives_the_same_documents(framing: str) -> None:
    documents = [event(f"CAR-{number}") for number in range(3)]
    ending, content = framed(documents, framing)
    rows = parsed(f"x{ending}", content).rows
    assert [(row.car_chassis, row.position) for row in rows] == [("CAR-0", 0), ("CAR-1", 1), ("CAR-2", 2)]
    assert [json.loads(row.payload) for row in rows] == documents


def test_a_pretty_printed_object_is_one_document_with_its_text_as_received() -> None:
    text = json.dumps(event(), indent=2)
    assert [row.payload for row in parsed("x.json", f"\n{text}\n").rows] == [text]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.csv", b"a,b", "unsupported_ending"),
        ("x.json.zip", GOOD.encode(), "unsupported_ending"),
        ("x.gz", gzip.compress(GOOD.encode(), mtime=0), "unsupported_ending"),
        ("x.json", b"", "empty_upload"),
        ("x.jsonl", b"\xef\xbb\xbf \r\n\t\n", "empty_upload"),
        ("x.json.gz", gzip.compress(b"", mtime=0), "empty_upload"),
        ("x.json", b'{"carChassis": "\xff"}', "not_utf8"),
        ("x.json", GOOD.encode("utf-16")[:-1], "not_utf8"),
        ("x.json", GOOD.encode("utf-32"), "not_utf8"),
        ("x.json", GOOD.encode("latin-1").replace(b"CAR", b"\xe9"), "not_utf8"),
        ("x.json", b'{"carChassis": "\xed\xa0\x80"}', "not_utf8"),
        ("x.json.gz", gzip.compress(gzip.compress(GOOD.encode(), mtime=0), mtime=0), "not_utf8"),
        ("x.json", gzip.compress(GOOD.encode(), mtime=0)[:-9], "broken_gzip"),
        ("x.json.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "broken_gzip"),
        ("x.json.gz", gzip.compress(GOOD.encode(), mtime=0) + b"trailing", "broken_gzip"),
        ("x.json", b" " * (LIMIT + 1), "too_large"),
    ],
)
def test_upload_that_cannot_be_decoded_is_one_rejection_with_its_content(
    name: str, content: bytes, reason: str
) -> None:
    result = parsed(name, content)
    assert (result.rows, [(one.position, one.reason) for one in result.rejections]) == ([], [(None, reason)])
    payload = result.rejections[0].payload
    if reason == "too_large":
        assert payload is None
    else:
        assert payload is not None
        assert content in (payload.encode(), base64.b64decode(payload) if not _is_text(content) else b"")


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_zip_bomb_is_rejected_before_it_is_unpacked() -> None:
    bomb = gzip.compress(b" " * 500_000_000, 9)
    result = parsed("bomb.json.gz", bomb[: LIMIT - 1])
    assert [one.reason for one in result.rejections] == ["too_large"]


# With quadratic cost, each of these takes minutes or hours; the suite's timeout detects that.
@pytest.mark.parametrize(
    ("name", "content", "outcomes"),
    [
        ("strings.json", b'"' * 2_000_000, 1_000_000),
        ("members.json.gz", gzip.compress(f"{GOOD}\n".encode(), mtime=0) * 100_000, 100_000),
        ("broken-elements.json", b"[" + b"oops," * 2_000_000 + b"1]", 1),
        ("joined.json", GOOD.encode() * 100_000, 100_000),
        ("joined-and-broken.json", (GOOD.encode() * 500 + b"oops\n") * 200, 100_200),
        ("pretty.json", json.dumps(event(), indent=1).encode() * 50_000, 50_000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_upload_of_many_documents_is_parsed_in_time(name: str, content: bytes, outcomes: int) -> None:
    result = parsed(name, content, LARGE)
    assert len(result.rows) + len(result.rejections) == outcomes


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":\n' * 200_000,
        b"[\n" * 200_000,
        b"1\n" + b"[\n" * 200_000,
        b"1\n" + (b"[" + b"1," * 10_000 + b"\n") * 200,
        b"[" + b"oops\n" * 1_000_000 + b"{}",
        b'{"' * 2_000_000,
    ],
    ids=["objects", "array", "arrays", "long lines", "words", "quotes"],
)
def test_the_rest_of_an_upload_whose_broken_documents_overlap_is_one_rejection(content: bytes) -> None:
    result = parsed("open.json", content, LARGE)
    assert result.rows == []
    assert 1 <= len(result.rejections) <= 20
    assert sum(len(one.payload or "") for one in result.rejections) >= len(content) * 0.9


def test_several_gzip_members_are_one_stream() -> None:
    assert outcome("x.jsonl.gz", gzip.compress(f"{GOOD}\n".encode()) + gzip.compress(GOOD.encode())) == (2, [])


def test_a_broken_line_is_rejected_alone() -> None:
    assert outcome("x.json", f"{GOOD}\n{{broken\n\n{GOOD}\n[1]\n7") == (
        2,
        [(1, "not_json"), (3, "not_an_object"), (4, "not_an_object")],
    )


@pytest.mark.parametrize(
    "broken",
    [
        *(GOOD[:place] for place in range(1, len(GOOD))),
        *("oops", "}", ",", "]", "'", "\\", "\0", "\ufeff", '{"a" "b"}', "nul", "-", '"', '{"a":"\\u12"}', "{'a': 1}"),
    ],
)
def test_a_broken_line_costs_no_neighbour(broken: str) -> None:
    assert outcome("x.json", f"{GOOD}\n{broken}\n{GOOD}\n{broken}\n{broken}\n{GOOD}") == (
        3,
        [(1, "not_json"), (3, "not_json"), (4, "not_json")],
    )


def test_after_a_broken_document_reading_continues_on_the_next_line_or_after_the_next_record_separator() -> None:
    assert outcome("x.json", f'{GOOD}{{"a": oops}}{GOOD}\n{GOOD}') == (2, [(1, "not_json")])
    assert outcome("x.json", f"\x1e{GOOD[:-9]}\x1e{GOOD}") == (1, [(0, "not_json")])


@pytest.mark.parametrize("indent", [1, 2, "\t"])
@pytest.mark.parametrize("text", [json.dumps(event(), indent=2), PRETTY_VEHICLE])
def test_a_broken_pretty_printed_document_is_one_rejection(text: str, indent: int | str) -> None:
    text = json.dumps(json.loads(text), indent=indent)
    lines = text.splitlines()
    for number in [number for number, line in enumerate(lines) if '"' in line]:
        broken = "\n".join([*lines[:number], lines[number].replace('"', "", 1), *lines[number + 1 :]])
        assert outcome("x.json", f"{text}\n{broken}\n{text}") == (2, [(1, "not_json")]), broken


@pytest.mark.parametrize("text", [json.dumps(event(), indent=2), PRETTY_VEHICLE])
def test_a_broken_pretty_printed_element_of_an_array_is_one_rejection(text: str) -> None:
    whole = json.loads(text)
    lines = json.dumps([whole, whole, whole], indent=2).splitlines()
    length = (len(lines) - 2) // 3
    for number in range(length + 2, 2 * length):
        broken = "\n".join([*lines[:number], lines[number].replace('"', "", 1), *lines[number + 1 :]])
        if '"' in lines[number]:
            assert outcome("x.json", broken) == (2, [(1, "not_json")]), broken


def test_lines_that_are_no_objects_are_separate_documents() -> None:
    assert outcome("x.json", f"[{GOOD}]\n[{GOOD}]\n1") == (0, [(place, "not_an_object") for place in range(3)])


def test_a_broken_first_line_that_looks_like_an_array_is_rejected_alone() -> None:
    assert outcome("x.json", f"[oops\n{GOOD}\n{GOOD}") == (2, [(0, "not_json"), (3, "not_json")])


def test_a_broken_object_over_several_lines_is_one_document() -> None:
    assert outcome("x.json", json.dumps(event(), indent=2)[:-3]) == (0, [(0, "not_json")])


def test_complete_elements_of_a_truncated_array_are_documents() -> None:
    assert outcome("x.json", f"[{GOOD}, {GOOD}, {GOOD[:-5]}") == (2, [(2, "not_json")])


@pytest.mark.parametrize("broken", ['{"a": }', "{broken}", "nothing", "'x'", '{"carChassis": "C"]'])
def test_a_broken_element_of_an_array_is_rejected_alone(broken: str) -> None:
    result = parsed("x.json", f"[{GOOD}, {broken} ,{GOOD}]")
    assert [row.position for row in result.rows] == [0, 2]
    assert [(one.position, one.reason, one.payload) for one in result.rejections] == [(1, "not_json", broken)]


def test_two_broken_elements_of_an_array_do_not_hide_those_between_them() -> None:
    documents = [json.dumps(event(f"CAR-{number}")) for number in range(200)]
    for place in (20, 150):
        documents[place] = documents[place].replace("CAR", 'C"R')
    rejections = [(20, "not_json"), (150, "not_json")]
    for between in (",", ", ", ",\n", "\n,"):
        for space in ("", "\n"):
            assert outcome("x.json", f"[{space}{between.join(documents)}{space}]") == (198, rejections)


@pytest.mark.parametrize("place", [0, 100, 199])
def test_stray_quotation_mark_in_an_array_costs_one_element(place: int) -> None:
    documents = [json.dumps(event(f"CAR-{number}")) for number in range(200)]
    documents[place] = documents[place].replace("CAR", 'C"R')
    assert outcome("x.json", f"[{','.join(documents)}]") == (199, [(place, "not_json")])


def test_values_that_end_in_a_backslash_cost_one_element_each_however_many_there_are() -> None:
    documents = [json.dumps(event(f"CAR-{number}", note="C:")) for number in range(5_000)]
    broken = range(0, 5_000, 100)
    for place in broken:
        documents[place] = documents[place].replace("C:", "C:\\")
    assert outcome_of(f"[{','.join(documents)}]") == (4_950, 50)


def test_brackets_in_strings_of_a_broken_element_do_not_end_it() -> None:
    broken = '{"carChassis": "}", "a": "{]", "b": oops}'
    assert outcome("x.json", f"[{GOOD},{broken},{GOOD}]") == (2, [(1, "not_json")])


def test_elements_that_are_cut_off_cost_no_others_however_many_there_are() -> None:
    documents = [json.dumps(event(f"CAR-{number}")) for number in range(30_000)]
    for place in range(100, 150):
        documents[place] = documents[place][:30]
    result = parsed("x.json", "[\n" + ",\n".join(documents) + "\n]", LARGE)
    assert (len(result.rows), len(result.rejections)) == (29_950, 50)


def test_text_after_an_array_in_one_line_costs_itself() -> None:
    assert outcome("x.json", f"[{GOOD},{GOOD}]\n\x1a") == (2, [(2, "not_json")])


@pytest.mark.parametrize("number", ["1.5", "1e5", "1.5e+7", "-1.25", "123456789"])
def test_a_number_is_one_value_wherever_a_piece_of_the_text_ends(number: str) -> None:
    for cut in range(1, len(number)):
        text = f'["{"x" * (256 * 1024 - len(number[:cut]) - 4)}",{number},{GOOD}]'
        assert outcome_of(text) == (1, 2)


def outcome_of(text: str) -> tuple[int, int]:
    result = parsed("x.json", text, LARGE)
    return len(result.rows), len(result.rejections)


def test_missing_and_extra_commas_of_an_array_cost_no_document() -> None:
    assert outcome("x.json", f"[,{GOOD} {GOOD},,{GOOD}\n{GOOD},]") == (4, [])


def test_text_after_an_array_is_read_as_a_sequence() -> None:
    assert outcome("x.json", f"[{GOOD}] {GOOD} oops\n[{GOOD}]") == (2, [(2, "not_json"), (3, "not_an_object")])


def test_a_comma_after_the_last_element_is_no_document() -> None:
    assert outcome("x.json", f"[{GOOD},{GOOD}, ]") == (2, [])


@pytest.mark.parametrize("content", ["1\n" * 10_001, f"[{'1,' * 10_000}1]", f"[\n{'{},' * 20_000}"])
def test_an_upload_of_too_many_documents_is_one_rejection(content: str) -> None:
    assert outcome("x.jsonl", content) == (0, [(None, "too_many_documents")])


def test_maximum_number_of_documents_is_accepted() -> None:
    assert parsed("x.json", f"[{GOOD},{GOOD},1]", Limits(LIMIT, 3)).rows[1].position == 1


@pytest.mark.parametrize("framing", ["{}", "[{},1]", "{}\n{}", "[{},"])
def test_a_document_too_long_to_be_parsed_is_rejected_alone(framing: str) -> None:
    text = f'{{"carChassis": "{"x" * MAX_DOCUMENT_CHARACTERS}"}}'
    result = parsed("x.json", framing.format(text, GOOD), Limits(10**9, 10))
    assert result.rejections[0].reason == "too_large"
    # As a row, its text would take ten times its size in memory; the archive has the text.
    assert result.rejections[0].payload is None


def test_element_that_python_cannot_parse_does_not_affect_its_neighbours() -> None:
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    huge = json.dumps(event()).replace('"metrics": {}', f'"metrics": {{"currentMileageKm": {"9" * 5_000}}}')
    assert outcome("x.json", f"[{GOOD},{deep},{huge},{GOOD}]") == (2, [(1, "nested_too_deep"), (2, "not_json")])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000])
def test_deep_nesting_is_a_rejection(text: str) -> None:
    assert outcome("x.json", text[: LIMIT - 1]) == (0, [(0, "nested_too_deep")])


def test_a_number_of_too_many_digits_beside_deep_nesting_is_a_rejection() -> None:
    text = f'{{"a": {"9" * 5_000}, "b": {"[" * 3_000}{"]" * 3_000}}}'
    assert outcome("x.json", text) == (0, [(0, "nested_too_deep")])


def test_an_empty_array_holds_no_document() -> None:
    assert outcome("x.json", "[ ]") == (0, [])


def test_line_separators_of_unicode_do_not_split_a_document() -> None:
    text = json.dumps(event("CAR\u2028\u0085X"), ensure_ascii=False)
    assert [row.car_chassis for row in parsed("x.jsonl", f"{text}\n{text}").rows] == ["CAR\u2028\u0085X"] * 2


@settings(max_examples=200, deadline=None)
@given(upload=UPLOADS)
def test_documents_received_are_rows_and_rejections(upload: tuple[list[Document], str]) -> None:
    ending, content = framed(*upload)
    result = parsed(f"x{ending}", content)
    positions = [row.position for row in result.rows] + [one.position for one in result.rejections]
    assert sorted(position or 0 for position in positions) == list(range(len(upload[0])))


def test_broken_array_with_a_deeply_nested_element_is_not_split_into_lines() -> None:
    deep = "[" * 1_500 + "]" * 1_500
    rejections = [(1, "nested_too_deep"), (2, "not_an_object"), (3, "not_an_object")]
    assert outcome("x.json", f'[{GOOD},{deep},"a" "b"]') == (1, rejections)
