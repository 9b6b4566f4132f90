"""Tests of ccm.cloud."""
