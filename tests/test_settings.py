"""Settings: read once, strictly; a wrong value is an error that names its key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from govbudget import IdType, Layout, SettingsError
from govbudget.settings import Settings, read_settings

DIGEST = "sha256:" + "0" * 64


def test_nothing_set_gives_the_defaults_of_the_contract():
    settings = read_settings({})
    assert settings == Settings()
    assert settings.url_prefix == "/api/v2"
    assert settings.features == {"aibridge"}
    assert settings.layout == Layout(IdType.UUID, "govbudget", "own")
    assert settings.policy_dir is None
    assert settings.expose_policy_digest is False


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("URL_PREFIX", "/money", "url_prefix", "/money"),
        ("URL_PREFIX", "/a/b-c/d.e~f_1", "url_prefix", "/a/b-c/d.e~f_1"),
        ("POLICY_DIR", "/etc/policy", "policy_dir", Path("/etc/policy")),
        ("POLICY_DIR", Path("/etc/policy"), "policy_dir", Path("/etc/policy")),
        ("POLICY_DIR", "", "policy_dir", None),
        ("POLICY_DIGEST", DIGEST, "policy_digest", DIGEST),
        ("POLICY_DIGEST", "", "policy_digest", None),
        ("FEATURES", "aibridge", "features", {"aibridge"}),
        ("FEATURES", " aibridge , ", "features", {"aibridge"}),
        ("FEATURES", "", "features", set()),
        ("FEATURES", ["aibridge"], "features", {"aibridge"}),
        ("FEATURES", set(), "features", set()),
        ("ID_TYPE", "bigint", "id_type", IdType.BIGINT),
        ("ID_TYPE", IdType.TEXT, "id_type", IdType.TEXT),
        ("SCHEMA", "budgets", "schema", "budgets"),
        ("GROUPS", "none", "groups", "none"),
        ("GROUPS", "public.teams.id", "groups", "public.teams.id"),
        ("TIME_ZONE", "Europe/Berlin", "time_zone", "Europe/Berlin"),
        ("EXPOSE_POLICY_DIGEST", True, "expose_policy_digest", True),
        ("EXPOSE_POLICY_DIGEST", "TRUE", "expose_policy_digest", True),
        ("EXPOSE_POLICY_DIGEST", "1", "expose_policy_digest", True),
        ("EXPOSE_POLICY_DIGEST", "0", "expose_policy_digest", False),
        ("REQUIRE_MATRIX", "true", "require_matrix", True),
        ("REQUIRE_MATRIX", "0", "require_matrix", False),
        ("REQUIRE_MATRIX", "", "require_matrix", None),
        ("EXPOSE_POLICY_DIGEST", "", "expose_policy_digest", False),
    ],
)
def test_a_value_that_can_be_meant_is_read(key, value, field, expected):
    settings = read_settings({f"GOVBUDGET_{key}": value})
    assert getattr(settings, field) == expected
    assert dataclasses.replace(Settings(), **{field: getattr(settings, field)}) == settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("URL_PREFIX", ""),
        ("URL_PREFIX", "/"),
        ("URL_PREFIX", "api"),
        ("URL_PREFIX", "/api/"),
        ("URL_PREFIX", "//api"),
        ("URL_PREFIX", "/a//b"),
        ("URL_PREFIX", "/a b"),
        ("URL_PREFIX", "/a\n"),
        ("URL_PREFIX", "/<x>"),
        ("URL_PREFIX", "/%41"),
        ("URL_PREFIX", "https://x/api"),
        ("URL_PREFIX", None),
        ("URL_PREFIX", 2),
        ("POLICY_DIR", 7),
        ("POLICY_DIR", ["/etc/policy"]),
        ("POLICY_DIGEST", "0" * 64),
        ("POLICY_DIGEST", DIGEST.upper()),
        ("POLICY_DIGEST", DIGEST + "0"),
        ("POLICY_DIGEST", DIGEST + "\n"),
        ("POLICY_DIGEST", "sha256:"),
        ("POLICY_DIGEST", 0),
        ("FEATURES", "aibrigde"),
        ("FEATURES", "aibridge;other"),
        ("FEATURES", "AIBRIDGE"),
        ("FEATURES", True),
        ("FEATURES", None),
        ("FEATURES", {"aibridge": False}),
        ("FEATURES", [["aibridge"]]),
        ("FEATURES", {None}),
        ("ID_TYPE", ""),
        ("ID_TYPE", "UUID"),
        ("ID_TYPE", "int"),
        ("ID_TYPE", None),
        ("SCHEMA", ""),
        ("SCHEMA", None),
        ("SCHEMA", "Budgets"),
        ("SCHEMA", 'x"; DROP'),
        ("SCHEMA", "x\n"),
        ("SCHEMA", "s" * 64),
        ("GROUPS", ""),
        ("GROUPS", "teams"),
        ("GROUPS", "teams.id"),
        ("GROUPS", "a.b.c.d"),
        ("GROUPS", "a..c"),
        ("GROUPS", None),
        *(("TIME_ZONE", zone) for zone in ("", "CET", "EST5EDT", "localtime", "Mars/Base", "+01")),
        *(
            ("TIME_ZONE", zone)
            for zone in ("Factory", "posix/Asia/Tokyo", "right/Asia/Tokyo", 7, [])
        ),
        ("EXPOSE_POLICY_DIGEST", "yes"),
        ("EXPOSE_POLICY_DIGEST", 1),
        ("EXPOSE_POLICY_DIGEST", None),
    ],
)
def test_any_other_value_is_an_error_that_names_the_key(key, value):
    with pytest.raises(SettingsError, match=f"GOVBUDGET_{key}"):
        read_settings({f"GOVBUDGET_{key}": value})


@pytest.mark.parametrize(
    "key", ["GOVBUDGET_url_prefix", "GOVBUDGET_", "GOVBUDGET_ENGINE", "GOVBUDGET_BUDGET_OBJECT"]
)
def test_an_unknown_key_is_an_error_that_names_it(key):
    with pytest.raises(SettingsError, match=f"`{key}`"):
        read_settings({key: "x"})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("GOVBUDGET_POLICY_DIGETS", "GOVBUDGET_POLICY_DIGEST"),
        ("GOVBUDGET_FEATURE", "GOVBUDGET_FEATURES"),
        ("GOVBUDGET_PREFIX", "GOVBUDGET_URL_PREFIX"),
    ],
)
def test_a_misspelt_key_is_told_what_was_meant(key, meant):
    with pytest.raises(SettingsError, match=f"`{key}`.*{meant}"):
        read_settings({key: "x"})


def test_keys_of_others_and_of_the_command_are_left_alone():
    config = {
        "SECRET_KEY": "x",
        "GOVBUDGETS_ID_TYPE": "x",
        "govbudget_id_type": "x",
        "GOVBUDGET_DATABASE_URL": "postgresql://x",
        "GOVBUDGET_TEST_DATABASE_URL": "postgresql://x",
    }
    assert read_settings(config) == Settings()


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_settings({}).url_prefix = "/x"


def test_each_setting_is_described():
    """A setting that nobody wrote a line about does not get in."""
    for field in dataclasses.fields(Settings):
        assert f"- `{field.name}`: " in Settings.__doc__


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("", ()),
        ("80", (80,)),
        (" 75, 90 ,100 ", (75, 90, 100)),
        ([1, 100], (1, 100)),
        ((), ()),
    ],
    ids=repr,
)
def test_thresholds_are_percents_as_a_text_or_as_numbers(value, read):
    assert read_settings({"GOVBUDGET_THRESHOLDS": value}).thresholds == read


@pytest.mark.parametrize(
    "value",
    ["0", "101", "90,75", "75,75", "75,,90", "7.5", "-1", "75 %", "seven", [True], [7.5], 75, None],
    ids=repr,
)
def test_other_thresholds_are_refused_and_the_error_says_what_to_write(value):
    with pytest.raises(SettingsError, match="write percents from 1 to 100, ascending"):
        read_settings({"GOVBUDGET_THRESHOLDS": value})
