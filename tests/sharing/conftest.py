"""The trained runs of the inference tests."""

from tests.inference.conftest import erc_lines, erc_rows, erc_run, msa_rows, msa_run

__all__ = ["erc_lines", "erc_rows", "erc_run", "msa_rows", "msa_run"]
