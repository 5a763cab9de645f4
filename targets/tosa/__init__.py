"""TOSA as a family of files: for Ethos-U, ExecuTorch and what else reads Arm's operator set."""
