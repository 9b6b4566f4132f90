"""Tests of ccm.service."""
