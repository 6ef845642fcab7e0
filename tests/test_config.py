"""The configuration: every bad value is named by its path, and secrets only by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from negawatt.access.keyring import Keyring
from negawatt.assembly import with_modes
from negawatt.catalogue import Catalogue, open_providers, price_ids
from negawatt.config import LEVER_NAMES, Config, load_config, parse_config
from negawatt.errors import ConfigError

PROVIDER: dict[str, Any] = {"name": "openai"}
MODEL: dict[str, Any] = {"name": "m", "provider": "openai"}
KEY: dict[str, Any] = {"id": "k", "key_env": "K"}

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"sever": {}}, "sever", "there is no such field"),
    ({"server": {"prot": 1}}, "server.prot", "there is no such field"),
    ({"server": {"port": "4100"}}, "server.port", "Expected int"),
    ({"server": {"port": 70_000}}, "server.port", "<= 65535"),
    ({"server": {"port": -1}}, "server.port", ">= 0"),
    ({"server": {"host": 1}}, "server.host", "Expected str"),
    ({"server": {"deadline_s": 0}}, "server.deadline_s", "> 0"),
    ({"server": {"max_body_bytes": 0}}, "server.max_body_bytes", ">= 1"),
    ({"server": {"max_in_flight": 1.5}}, "server.max_in_flight", "Expected int"),
    ({"server": {"allow_origins": "https://a"}}, "server.allow_origins", "Expected array"),
    ({"server": []}, "server", "Expected object"),
    ({"ledger": {"url": 5}}, "ledger.url", "Expected str"),
    ({"ledger": {"keep_content": "yes"}}, "ledger.keep_content", "Expected bool"),
    ({"cache": {"stroe": "memory:"}}, "cache.stroe", "there is no such field"),
    ({"economics": {"batch": 0}}, "economics.batch", ">= 1"),
    ({"holdout": {"share": 1.5}}, "holdout.share", "<= 1"),
    ({"holdout": {"share": -0.1}}, "holdout.share", ">= 0"),
    ({"levers": {"magic": {}}}, "levers.magic", "there is no such field"),
    ({"levers": {"exact_cache": {"mode": "maybe"}}}, "levers.exact_cache.mode", "maybe"),
    ({"levers": {"exact_cache": {"share": 2}}}, "levers.exact_cache.share", "<= 1"),
    ({"levers": {"exact_cache": {"ttl_s": 0}}}, "levers.exact_cache.ttl_s", "> 0"),
    ({"levers": {"exact_cache": {"access": "rw"}}}, "levers.exact_cache.access", "rw"),
    ({"levers": {"exact_cache": {"when": "often"}}}, "levers.exact_cache.when", "often"),
    ({"levers": {"coalesce": {"max_buffer_bytes": -1}}}, "levers.coalesce.max_buffer_bytes", ">= 1"),
    ({"levers": {"retry": {"attempts": 0}}}, "levers.retry.attempts", ">= 1"),
    ({"levers": {"retry": {"attempts": 21}}}, "levers.retry.attempts", "<= 20"),
    ({"levers": {"retry": {"backoff_s": -1}}}, "levers.retry.backoff_s", "> 0"),
    ({"classes": {"faq": {"personal": 1}}}, "classes.faq.personal", "Expected bool"),
    ({"classes": {"faq": {"needs": ["corpus"]}}}, "classes.faq.needs[0]", "corpus"),
    ({"cache": {"layers": {"tool": {"ttl_s": -1}}}}, "cache.layers.tool.ttl_s", "> 0"),
    ({"levers": {"semantic_cache": {"same_answer": 0.5}}}, "levers.semantic_cache.same_answer", "other_answer"),
    ({"classes": {"faq": {"cache": "sometimes"}}}, "classes.faq.cache", "sometimes"),
    ({"classes": {"faq": {"levers": {"magic": "on"}}}}, "classes.faq.levers.magic", "there is no such lever"),
    ({"providers": [{}]}, "providers[0].name", "this field is required"),
    ({"providers": [{"name": ""}]}, "providers[0].name", "length >= 1"),
    ({"providers": [PROVIDER, {"name": "b", "models": "*"}]}, "providers[1].models", "Expected array"),
    ({"providers": [{"name": "a", "transport": "carrier pigeon"}]}, "providers[0].transport", "carrier pigeon"),
    ({"providers": [{"name": "a", "max_connections": 0}]}, "providers[0].max_connections", ">= 1"),
    ({"providers": [PROVIDER, PROVIDER]}, "providers[1]", "'openai' is there twice"),
    ({"models": [MODEL]}, "models[0].provider", "no provider is named 'openai'; known: none"),
    ({"providers": [PROVIDER], "models": [MODEL, MODEL]}, "models[1]", "'m' is there twice"),
    ({"providers": [PROVIDER], "models": [{"name": "m"}]}, "models[0].provider", "this field is required"),
    (
        {"providers": [PROVIDER], "models": [{**MODEL, "fallbacks": ["n"]}]},
        "models[0].fallbacks[0]", "no model is named 'n'; known: m",
    ),
    (
        {"providers": [PROVIDER], "models": [{**MODEL, "fallbacks": ["m"]}]},
        "models[0].fallbacks[0]", "a model cannot be its own fallback",
    ),
    ({"keys": [{"id": "k"}]}, "keys[0].key_env", "this field is required"),
    ({"keys": [{"key_env": "K"}]}, "keys[0].id", "this field is required"),
    ({"keys": [KEY, KEY]}, "keys[1]", "'k' is there twice"),
    ({"keys": [{**KEY, "tenant": ""}]}, "keys[0].tenant", "length >= 1"),
    ({"keys": [{**KEY, "models": "m"}]}, "keys[0].models", "Expected"),
    ({"keys": [{**KEY, "classes": ["default", "nope"]}]}, "keys[0].classes[1]", "no class is named 'nope'; known: def"),
    ({"keys": [{**KEY, "budgets": ["nope"]}]}, "keys[0].budgets[0]", "no budget is named 'nope'; known: none"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "where", "what"), BAD, ids=[f"{where}: {what}" for _, where, what in BAD])
def test_a_bad_value_is_named_by_its_path(data: dict[str, Any], where: str, what: str):
    """The message says: which file, which field, what was expected."""
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "negawatt.toml")
    assert caught.value.message.startswith(f"negawatt.toml: {where}: ")
    assert what in caught.value.message
    assert caught.value.param == where


@pytest.mark.parametrize("name", ["key", "secret", "api_key", "password", "token"])
def test_secrets_are_named_not_written_down(name: str):
    """There is no field to write one into, neither for providers nor for callers."""
    for table, entry in (("providers", PROVIDER), ("keys", KEY)):
        with pytest.raises(ConfigError, match=rf"{table}\[0\]\.{name}: there is no such field"):
            parse_config({table: [{**entry, name: "sk-123"}]})


def test_everything_has_a_default():
    """No file, no surprises: an empty one is a whole configuration."""
    config = parse_config({})
    assert config == Config()
    assert (config.server.host, config.ledger.url) == ("127.0.0.1", "sqlite:///negawatt.sqlite")
    assert config.levers.exact_cache.when == "deterministic"
    assert config.ledger.keep_content is False


def test_a_config_cannot_be_changed_afterwards():
    """It is a value."""
    with pytest.raises(AttributeError):
        parse_config({}).server.port = 1  # type: ignore[misc]


# -- the file ------------------------------------------------------------------------------------------------------


def test_a_file_is_read_whole(tmp_path: Path):
    """With everything that differs from the defaults."""
    path = tmp_path / "negawatt.toml"
    path.write_text("""
[server]
port = 4200
[levers.exact_cache]
ttl_s = 60
mode = "canary"
[classes.faq]
cache = "always"
levers = { coalesce = "off" }
[[providers]]
name = "openai"
key_env = "MY_KEY"
[[models]]
name = "main"
provider = "openai"
upstream = "gpt-4o"
""")
    config = load_config(path, environ={})
    assert (config.server.port, config.levers.exact_cache.ttl_s, config.levers.exact_cache.mode) == (4200, 60, "canary")
    assert config.classes["faq"].levers == {"coalesce": "off"}
    assert config.providers[0].key_env == "MY_KEY"
    assert config.levers.retry == Config().levers.retry


@pytest.mark.parametrize("text", [b"port = ", b"[server\n", b"\xff\xfe", b"[server]\nport = 1\nport = 2\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: bytes):
    """With the place of the fault, as the parser knows it."""
    path = tmp_path / "broken.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML: "):
        load_config(path, environ={})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    """One that was asked for must be there."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=r": cannot be read: "):
            load_config(path, environ={})


def test_a_bad_value_names_the_file_it_is_in(tmp_path: Path):
    """Path of the file and of the field."""
    path = tmp_path / "negawatt.toml"
    path.write_text("[server]\nport = 'x'\n")
    with pytest.raises(ConfigError, match=r"negawatt\.toml: server\.port: "):
        load_config(path, environ={})


def test_without_a_file_the_keys_in_the_environment_say_which_providers_there_are(tmp_path: Path, monkeypatch):
    """A key that is set is a provider that can be used; an empty one is not set."""
    monkeypatch.chdir(tmp_path)
    assert load_config(environ={}).providers == ()
    config = load_config(environ={"OPENAI_API_KEY": "sk-1", "GROQ_API_KEY": "", "OTHER": "x"})
    assert [provider.name for provider in config.providers] == ["openai"]
    (tmp_path / "negawatt.toml").write_text("[[providers]]\nname = 'groq'\n")
    assert [p.name for p in load_config(environ={"OPENAI_API_KEY": "sk-1"}).providers] == ["groq"]


# -- what it opens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "environ", "where"),
    [
        ({"name": "openai"}, {}, "providers[0].key_env"),
        ({"name": "openai", "key_env": "MINE"}, {"OPENAI_API_KEY": "x"}, "providers[0].key_env"),
        ({"name": "a", "kind": "no such"}, {}, "providers[0].kind"),
        ({"name": "mine"}, {}, "providers[0].base_url"),
        ({"name": "a", "url": "modelled:?c=1"}, {}, "url"),
        ({"name": "a", "kind": "recorded"}, {}, "providers[0].url"),
    ],
)
async def test_a_provider_that_cannot_be_opened_is_named(provider: dict[str, Any], environ: dict[str, str], where: str):
    """Before anything is served; the secret itself is never in the message."""
    config = parse_config({"providers": [provider]})
    with pytest.raises(ConfigError) as caught:
        open_providers(config, environ)
    assert caught.value.param == where


async def test_a_provider_takes_its_key_from_the_environment():
    """And nothing that can be shown holds it."""
    config = parse_config({"providers": [{"name": "openai"}]})
    opened = open_providers(config, {"OPENAI_API_KEY": "sk-secret"})
    assert ("authorization", "Bearer sk-secret") in opened["openai"]._always  # type: ignore[attr-defined]
    assert "sk-secret" not in repr(config)
    await opened["openai"].close()


def test_a_key_whose_variable_is_not_set_is_named():
    """Rather than let nobody in, or everybody."""
    keys = parse_config({"keys": [KEY, {"id": "k2", "key_env": "K2"}]}).keys
    for environ in ({"K": "a"}, {"K": "a", "K2": ""}):
        with pytest.raises(ConfigError, match=r"keys\[1\]\.key_env: the variable K2 is not set"):
            Keyring(keys, environ)
    with pytest.raises(ConfigError, match=r"keys\[1\]: K2 holds the same key"):
        Keyring(keys, {"K": "a", "K2": "a"})


MODELS = {
    "providers": [
        {"name": "openai", "models": ["gpt-*", "o3"]}, {"name": "local", "kind": "vllm", "models": ["*"]},
    ],
    "models": [
        {"name": "main", "provider": "openai", "upstream": "gpt-4o", "fallbacks": ["spare", "other"]},
        {"name": "spare", "provider": "local", "fallbacks": ["main"]},
        {"name": "other", "provider": "openai", "upstream": "o3", "fallbacks": ["spare"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("main", [("openai", "gpt-4o"), ("local", "spare"), ("openai", "o3")]),
        ("spare", [("local", "spare"), ("openai", "gpt-4o")]),
        ("gpt-4o-mini", [("openai", "gpt-4o-mini")]),
        ("o3", [("openai", "o3")]),
        ("local/gpt-4o", [("local", "gpt-4o")]),
        ("openai/gpt-4o", [("openai", "gpt-4o")]),
        ("anything", [("local", "anything")]),
        ("openai/anything", [("local", "openai/anything")]),
    ],
)
def test_a_name_leads_to_its_targets(name: str, targets: list[tuple[str, str]]):
    """A configured model, a pattern, provider/model, or the one provider that serves everything."""
    found = Catalogue(parse_config(MODELS)).targets(name)
    assert [(target.provider, target.model) for target in found] == targets


def test_a_name_that_nobody_serves_leads_nowhere():
    """And the names that can be listed are listed."""
    data = {**MODELS, "providers": [{"name": "openai", "models": ["gpt-*", "o3"]}, {"name": "local", "models": ["x"]}]}
    catalogue = Catalogue(parse_config(data))
    assert catalogue.targets("claude") == ()
    assert set(catalogue.names()) == {"main", "spare", "other", "o3", "x"}


def test_the_table_of_names_is_bounded():
    """Callers choose names, and can choose many."""
    catalogue = Catalogue(parse_config(MODELS))
    for i in range(10_050):
        catalogue.targets(f"m{i}")
    assert len(catalogue._kept) <= 10_000


def test_each_provider_has_its_id_in_the_price_tables():
    """Its own, or the one of its row; none for a server that we know nothing of, whose models anybody may run."""
    data = {
        "providers": [
            {"name": "openai"}, {"name": "mine", "kind": "openai"}, {"name": "gemini"}, {"name": "vllm"},
            {"name": "special", "kind": "vllm", "priced_as": "groq"}, {"name": "box", "base_url": "http://127.0.0.1:1"},
        ]
    }  # fmt: skip
    assert price_ids(parse_config(data)) == {
        "openai": "openai", "mine": "openai", "gemini": "google", "vllm": "vllm", "special": "groq", "box": None,
    }  # fmt: skip


def test_modes_can_be_set_for_an_experiment():
    """A class's own off stays: an experiment does not switch on what was switched off on purpose."""
    config = parse_config({"classes": {"a": {"levers": {"coalesce": "off", "exact_cache": "shadow"}}}})
    changed = with_modes(config, dict.fromkeys(LEVER_NAMES, "on"))
    assert changed.classes["a"].levers == {"coalesce": "off"}
    assert msgspec.structs.replace(changed, classes=config.classes, levers=config.levers) == config
    assert with_modes(config, {"retry": "off"}).levers.retry.mode == "off"


def test_a_vendors_own_models_go_to_that_vendor():
    """With the keys of several, in whatever order: nobody has to write patterns to use two SDKs."""
    for names in (("openai", "anthropic", "voyage"), ("voyage", "anthropic", "openai")):
        catalogue = Catalogue(parse_config({"providers": [{"name": name} for name in names]}))
        expected = {
            "claude-sonnet-4-5": "anthropic", "gpt-5": "openai", "o3-mini": "openai", "voyage-3": "voyage",
            "anything-else": names[0], "openai/claude-x": "openai",
        }  # fmt: skip
        for model, provider in expected.items():
            assert catalogue.targets(model)[0].provider == provider, model
    named = [{"name": "openai", "models": ["claude-*"]}, {"name": "anthropic"}]
    assert Catalogue(parse_config({"providers": named})).targets("claude-x")[0].provider == "openai", "as it is written"
