"""Convert weights from and to PyTorch: python scripts/convert.py RUN FILE, or FILE RUN."""

from jaxcnn.commands.convert import main

if __name__ == "__main__":
    main()
