"""Measure speed beside others: python scripts/benchmark.py NETWORK --against torch,linen."""

from jaxcnn.commands.benchmark import main

if __name__ == "__main__":
    main()
