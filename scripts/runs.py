"""List runs: python scripts/runs.py [RUN ...]."""

from jaxcnn.commands.runs import main

if __name__ == "__main__":
    main()
