"""Measure a claim over seeds: python scripts/study.py [STUDY [--FLAG VALUE ...]]."""

from jaxcnn.commands.study import main

if __name__ == "__main__":
    main()
