"""Several databases: which slots each has, and which one an organization or the site is in."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from tests.support import make_gov

from govbudget import Databases, SettingsError
from govbudget.new_ids import Slot, find_slot, make_id, read_slot

ONE, OTHER = (
    sa.create_engine(f"postgresql+psycopg://nowhere.invalid/{name}") for name in ("one", "other")
)
HALVES = {"0-2047": ONE, "2048-4095": OTHER}
IDS = [UUID(int=7), 7, "7", "\u00fcn\u00efcode", -(2**63)]


@pytest.mark.parametrize("organization", IDS)
def test_an_organization_is_in_the_database_of_its_slot(organization):
    slot = find_slot(organization)
    databases = Databases({f"{slot}": OTHER, f"0-{slot - 1},{slot + 1}-4095": ONE})
    assert databases(organization) is databases(Slot(slot)) is OTHER
    assert databases(Slot(slot - 1)) is databases(Slot(slot + 1)) is ONE


@pytest.mark.parametrize("organization", IDS)
def test_the_id_of_a_hold_leads_to_the_database_of_its_organization(organization):
    slot = read_slot(make_id(organization))
    assert slot == find_slot(organization)
    assert Databases(HALVES)(slot) is Databases(HALVES)(organization)


@pytest.mark.parametrize(
    "its_id",
    [uuid4(), UUID(int=0), UUID(int=8 << 76), UUID("018f3c5e-0000-7abc-8000-000000000000")],
)
def test_an_id_of_another_making_has_no_slot(its_id):
    assert read_slot(its_id) is None


def test_the_site_is_in_the_database_of_slot_0():
    assert Databases(HALVES)(None) is ONE
    assert Databases({"0": OTHER, "1-4095": ONE})(None) is OTHER
    assert read_slot(make_id(None)) == 0


def test_each_database_is_listed_once_by_the_first_of_its_slots():
    databases = Databases({"4095": ONE, "9-4000": OTHER, "0-8, 4001-4094": ONE})
    assert list(databases) == [("0-8,4001-4095", ONE), ("9-4000", OTHER)]
    assert databases.list_first() == [0, 9]
    assert all(type(slot) is Slot for slot in databases.list_first())
    assert list(Databases(dict(databases))) == list(databases)


@pytest.mark.parametrize(
    ("ranges", "sentence"),
    [
        ([], "no database has 0-4095"),
        (["0-2047", "2049-4095"], "no database has 2048"),
        (["0-2048", "2048-4095"], "several have 2048"),
        (["0-99,102", "0-1, 110-4095"], "no database has 100-101,103-109; several have 0-1"),
        (["0-4096"], "`0-4096` is not a range of slots"),
        (["9-7"], "`9-7` is not a range of slots"),
        (["-7"], "`-7` is not a range of slots"),
        ([""], "`` is not a range of slots"),
        (["0-4095,"], "`0-4095,` is not a range of slots"),
        (["\u0660-4095"], "is not a range of slots"),
        (["all"], "`all` is not a range of slots"),
        ([range(2048)], "`range(0, 2048)` is not a range of slots"),
    ],
)
def test_slots_that_are_missing_doubled_or_not_slots_are_named(ranges, sentence):
    with pytest.raises(SettingsError) as refused:
        Databases(dict.fromkeys(ranges, ONE))
    assert sentence in refused.value.detail


@pytest.mark.parametrize("given", [None, [ONE], ONE], ids=["none", "list", "engine"])
def test_what_is_no_dict_of_engines_is_refused_with_what_to_give(given):
    with pytest.raises(SettingsError, match="give a dict from slots to engines"):
        Databases(given)


def test_the_slot_of_a_hold_is_read_from_the_text_of_its_id_too():
    organization = uuid4()
    for text in (str(make_id(organization)), str(make_id(organization)).upper()):
        assert Databases.read_slot(text) == find_slot(organization)
    with pytest.raises(ValueError, match="UUID"):
        Databases.read_slot("x")


def test_a_unit_asks_for_the_one_spelling_of_an_organizations_id():
    """An id in capitals has another hash."""
    asked = []

    def find_engine(organization):
        asked.append(organization)
        raise LookupError

    gov, organization = make_gov(), uuid4()
    gov.find_engine = find_engine
    for given in (str(organization).upper(), organization, None, Slot(7)):
        with pytest.raises(LookupError), gov.unit(uuid4(), organization=given):
            pass
    assert asked == [organization, organization, None, 7]
    with pytest.raises(TypeError, match="expected an id"), gov.unit(uuid4(), organization=7):
        pass
