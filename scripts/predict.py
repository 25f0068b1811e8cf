"""Classify images with a trained network: python scripts/predict.py RUN IMAGE..."""

from jaxcnn.commands.predict import main

if __name__ == "__main__":
    main()
