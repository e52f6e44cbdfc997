"""``bgaug train`` as a program: `python tools/train_net.py --help` says how."""

from bgaug_d2.commands.train import main

if __name__ == "__main__":
    main()
