"""Tests of the project, by what they need; `harness` is what they run on."""
