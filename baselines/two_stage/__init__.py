"""Two-stage rows: a policy that predicts RGB, and a depth estimator that is applied to its predicted frames."""
