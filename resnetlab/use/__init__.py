"""What a trained network is used for: predicting, explaining, features, exporting, serving."""
