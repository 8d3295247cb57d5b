"""Logs of a training where teams look: TensorBoard, MLflow, Weights & Biases."""
