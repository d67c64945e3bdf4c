"""The verbs of the command line, one function each; heavy imports happen inside them."""
