"""The measurements of docs/benchmarks.md: `make bench`, with peers, in one run."""
