"""A configuration that is wrong is named in LMCache's log, and LMCache goes on without it."""

from __future__ import annotations

import pathlib

import pytest

pytest.importorskip("lmcache", reason="LMCache is not installed here: ./dev test installs it")

import yaml  # noqa: E402
from engine import CHUNK_TOKENS, Engine, tokens_of  # noqa: E402

import reprise.engines.lmcache  # noqa: E402
from reprise.engines.lmcache import versions  # noqa: E402

ROOT = pathlib.Path(__file__).parents[3]

WRONG = {
    "unknown": ({"router": "a:1", "lokup_timeout_ms": 1}, {}, "unknown setting 'lokup_timeout_ms'"),
    "nowhere": ({}, {}, "set either router"),
    "twice": ({"router": "a:1", "shards": "b:2"}, {}, "set either router"),
    "text": ({"router": "a:1", "load_threads": "many"}, {}, "load_threads is 'many'"),
    "none": ({"router": "a:1", "load_threads": 0}, {}, "load_threads is 0"),
    "codec": ({"router": "a:1", "codec": "int8"}, {}, "codec is 'int8'"),
    "tls": ({"router": "a:1", "tls_ca": "ca.pem"}, {}, "tls_cert, tls_key is missing"),
    "serde": ({"router": "a:1"}, {"remote_serde": "kivi"}, "remote_serde is 'kivi'"),
    "lanes": ({"router": "a:1", "lanes": ["boat"]}, {}, "boat"),
}


@pytest.mark.parametrize("settings, config, sentence", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(log, settings, config, sentence):
    with Engine(settings, **config) as engine:
        assert list(engine.manager.storage_backends) == ["LocalCPUBackend"]
        assert engine.lookup(tokens_of("none", CHUNK_TOKENS)) == 0
    assert "Failed to create remote backend for plugin reprise: Reprise: " in log.text
    assert sentence in log.text


def test_a_second_instance_has_settings_of_its_own(cache):
    extra = {
        "remote_storage_plugin.reprise.module_path": "reprise.engines.lmcache",
        "remote_storage_plugin.reprise.class_name": "RepriseAdapter",
        "remote_storage_plugin.reprise.router": cache.router,
        "remote_storage_plugin.reprise.second.module_path": "reprise.engines.lmcache",
        "remote_storage_plugin.reprise.second.class_name": "RepriseAdapter",
        "remote_storage_plugin.reprise.second.router": cache.router,
        "remote_storage_plugin.reprise.second.scope": "second",
    }
    plugins = ["reprise", "reprise.second"]
    with Engine({}, remote_storage_plugins=plugins, extra_config=extra) as engine:
        backends = engine.manager.storage_backends
        assert {"RemoteBackend-reprise", "RemoteBackend-reprise.second"} < set(backends)
        scopes = [
            backends[f"RemoteBackend-{name}"].connection.getWrappedConnector()._settings.scope
            for name in plugins
        ]
    assert scopes == ["", "second"]


@pytest.mark.parametrize("readme", ["README.md", "client/python/README.md"])
def test_the_configuration_that_is_shown_works(cache, readme):
    blocks = (ROOT / readme).read_text().split("```yaml\n")[1:]
    (shown,) = [one.split("```")[0] for one in blocks if "remote_storage_plugin.reprise" in one]
    config = yaml.safe_load(shown)
    config["extra_config"]["remote_storage_plugin.reprise.router"] = cache.router
    tokens = tokens_of(readme, CHUNK_TOKENS)
    with Engine({}, **config) as engine:
        engine.store(tokens, engine.computed(readme, len(tokens)))
        assert engine.lookup(tokens) == len(tokens)


def test_pythons_own_hash_is_warned_of(cache, log):
    with Engine({"router": cache.router}, pre_caching_hash_algorithm="builtin"):
        pass
    assert "set pre_caching_hash_algorithm to sha256_cbor" in log.text


def test_another_lmcache_is_refused_in_one_sentence(monkeypatch):
    assert versions.missing_parts() == []
    needed = {**versions.NEEDED, "lmcache.utils": ("CacheEngineKey.chunk_name",)}
    monkeypatch.setattr(versions, "NEEDED", needed)
    with pytest.raises(versions.UnsupportedLMCache, match="it lacks lmcache.utils.CacheEngineKey"):
        reprise.engines.lmcache.RepriseAdapter
