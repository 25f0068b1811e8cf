"""Train a network: python scripts/train.py [PRESET] [--FLAG VALUE ...]."""

from jaxcnn.commands.train import main

if __name__ == "__main__":
    main()
