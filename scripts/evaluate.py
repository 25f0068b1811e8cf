"""Evaluate a trained run: python scripts/evaluate.py RUN."""

from jaxcnn.commands.evaluate import main

if __name__ == "__main__":
    main()
