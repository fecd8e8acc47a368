"""The terms of a whole log, against a plain list of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from trioraft._errors import InvariantError
from trioraft._types import NOTHING, EntryId
from trioraft.core import Terms


def terms_of(start: EntryId, *terms: int) -> Terms:
    made = Terms(start)
    for index, term in enumerate(terms, start.index + 1):
        made.extend(index, term)
    return made


def test_an_empty_log() -> None:
    terms = Terms()
    assert (terms.start, terms.last, terms.runs, terms.start_index) == (NOTHING, NOTHING, (), 0)
    assert terms.at(0) == terms.at(1) == 0
    assert terms.find(0, 5) == 0


def test_what_is_cut_off_leaves_the_position_of_its_last_entry() -> None:
    terms = terms_of(NOTHING, 1, 1, 2, 2, 5)
    terms.compact(3)
    assert (terms.start, terms.last) == (EntryId(2, 3), EntryId(5, 5))
    # The run goes on with the term of the start: it need not be named.
    assert terms.runs == ((5, 5),)
    assert [terms.at(index) for index in range(7)] == [0, 0, 0, 2, 2, 5, 0]
    terms.compact(2)
    assert terms.start == EntryId(2, 3)
    with pytest.raises(InvariantError, match="ends with 5@5 cannot begin behind 6"):
        terms.compact(6)
    terms.reset(EntryId(7, 9))
    assert (terms.start, terms.last, terms.runs) == (EntryId(7, 9), EntryId(7, 9), ())
    terms.extend(12, 7)
    assert terms.last == EntryId(7, 12)


def test_what_cannot_be_is_refused() -> None:
    terms = terms_of(EntryId(2, 3), 2, 4)
    for last, term in [(5, 4), (4, 4), (6, 3)]:
        with pytest.raises(InvariantError, match="cannot follow 5@4"):
            terms.extend(last, term)
    with pytest.raises(InvariantError, match="begins behind 3@2 cannot end with 2"):
        terms.truncate(2)
    terms.truncate(9)
    assert terms.last == EntryId(4, 5)
    for runs in ([(3, 2)], [(11, 2)], [(4, 1)], [(5, 3), (5, 4)], [(5, 3), (7, 2)]):
        with pytest.raises(InvariantError, match="does not fit behind term"):
            Terms(EntryId(2, 3), runs, 10)


def test_equal_and_shown() -> None:
    terms = terms_of(EntryId(2, 3), 2, 4)
    assert terms == terms.copy() == Terms(EntryId(2, 3), ((5, 4),), 5)
    assert terms != terms_of(EntryId(2, 3), 2, 4, 4)
    assert terms != "terms"
    assert repr(terms) == "Terms(3@2, ((5, 4),), 5)"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_against_a_plain_list(data: st.DataObject) -> None:
    # The model: the position before the first, and the term of each entry.
    start, model = NOTHING, list[int]()
    terms = Terms()
    for _ in range(data.draw(st.integers(1, 20))):
        last_term, last = (model[-1] if model else start.term), start.index + len(model)
        match data.draw(st.sampled_from(["extend", "extend", "truncate", "compact", "reset", "copy"])):
            case "extend":
                count, term = data.draw(st.integers(1, 4)), max(last_term, 1) + data.draw(st.integers(0, 2))
                terms.extend(last + count, term)
                model += [term] * count
            case "truncate":
                to = data.draw(st.integers(start.index, last + 2))
                terms.truncate(to)
                del model[to - start.index :]
            case "compact":
                to = data.draw(st.integers(0, last))
                terms.compact(to)
                if to > start.index:
                    count = to - start.index
                    start, model = EntryId(model[count - 1], to), model[count:]
            case "reset":
                start, model = EntryId(last_term + 1, last + data.draw(st.integers(1, 5))), []
                terms.reset(start)
            case "copy":
                terms = terms.copy()
        last = start.index + len(model)
        assert (terms.start, terms.last_index, terms.start_index) == (start, last, start.index)
        assert terms.last == EntryId(model[-1] if model else start.term, last)
        assert terms.newest == terms.last.term
        at = {start.index: start.term} | dict(enumerate(model, start.index + 1))
        for index in range(last + 3):
            assert terms.at(index) == at.get(index, 0)
        assert terms == Terms(start, terms.runs, last)
        index, term = data.draw(st.integers(start.index, last)), data.draw(st.integers(0, 30))
        fitting = [place for place in at if start.index < place <= index and at[place] <= term]
        assert terms.find(index, term) == max(fitting, default=start.index)
