"""`python -m ana_fx`: the command line."""

from ana_fx.targets.command_line import app

if __name__ == "__main__":
    app(prog_name="ana-fx")
