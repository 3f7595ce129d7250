import pytest

from govbudget import IdType, Layout
from govbudget.errors import SettingsError


@pytest.mark.parametrize(
    "schema", ["public", "pg_catalog", "pg_mine", "Upper", "a-b", "", "1a", "a;b"]
)
def test_a_schema_that_is_not_govbudgets_alone_or_no_plain_name_is_refused(schema):
    with pytest.raises(SettingsError, match="GOVBUDGET_SCHEMA"):
        Layout(schema=schema)


@pytest.mark.parametrize("groups", ["teams", "host.teams", "a.b.c.d", "..", "host..id", "OWN"])
def test_groups_are_own_none_or_a_column_of_a_table_of_a_schema(groups):
    with pytest.raises(SettingsError, match="GOVBUDGET_GROUPS"):
        Layout(groups=groups)


def test_the_type_of_ids_may_be_its_word_and_is_no_other():
    assert Layout("bigint").id_type is IdType.BIGINT
    with pytest.raises(SettingsError, match="the type of ids is `int`; write one of uuid, bigint"):
        Layout("int")
