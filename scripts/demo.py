"""Write a page to draw on and to look inside LeNet-5: python scripts/demo.py [RUN]."""

from jaxcnn.commands.demo import main

if __name__ == "__main__":
    main()
