"""What lorascope costs, beside what a competent user would run without it. `make bench`."""
