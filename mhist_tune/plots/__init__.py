"""Arrays in, figures out. No torch, no database. The packages above it may import it.

- `canvas`: matplotlib figures without a window system, as PNG or SVG, and the colours of all figures.
- `decisions`: Figures of a model in use: the decision curve, and risk against coverage.
- `model_comparison`: Figures of several models on the same test images.
- `plotly`: Plotly figures as JSON, for optuna-dashboard. Does not import Plotly.
- `predictions`: Figures of one model's test predictions: ROC, precision and recall, calibration, error rates by votes.
- `search`: Figures of training and search: learning curves, history, importance.
- `svg`: Small SVG charts as strings, for our pages, which are rendered every second.
"""
