"""Uses of a trained network: predicting, explaining, features, exporting, serving."""
