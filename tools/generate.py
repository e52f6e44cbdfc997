"""``bgaug paint`` as a program: `python tools/generate.py --help` says how."""

from bgaug_d2.commands.paint import main

if __name__ == "__main__":
    main()
