"""Print a network layer by layer: python scripts/summary.py MODEL."""

from jaxcnn.commands.summary import main

if __name__ == "__main__":
    main()
