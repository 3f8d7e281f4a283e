"""`python -m msekit`: the same program, so that accelerate and torchrun can launch it."""

from msekit.cli.entry import run

if __name__ == "__main__":
    run()
