"""Estimates the uncertainty of scores: bootstrap, permutation test, covariance."""
