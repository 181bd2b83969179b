"""The public face for notebooks and scripts: from a data frame to a trained model, by the code of the command line."""
