"""Compare runs: python scripts/compare.py [RUN ...]."""

from jaxcnn.commands.compare import main

if __name__ == "__main__":
    main()
