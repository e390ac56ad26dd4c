"""How sure a number is: items, bootstrap, permutation, covariance."""
