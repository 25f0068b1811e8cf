"""Export a network or import weights: scripts/convert.py export RUN FILE, or import FILE RUN."""

from jaxcnn.commands.convert import main

if __name__ == "__main__":
    main()
