"""Accounting, ledger, noise key and leaks of private training. ``README.md`` states what the guarantee means."""
