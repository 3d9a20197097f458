"""The version of engine and add-on; pyproject.toml and the extension's manifest carry the same."""

VERSION = "0.1.0"
