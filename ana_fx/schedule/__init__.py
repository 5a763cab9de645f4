"""How much noise a layer has at what time: the degrees of freedom of the paper."""
