"""Arrays in, figures out. No torch, no database.

- `canvas`: matplotlib figures without a window system: as PNG files, or as SVG elements in the colours of an HTML
  page.
- `model_comparison`: Figures of several models on the same test images, from plain arrays.
- `plotly`: Plotly figures as JSON documents, small enough for a page that polls them: no Plotly is needed to write
  them.
- `predictions`: Figures of predictions on the test partition, from plain arrays.
- `search`: Figures of training and search: learning curves, history, importance.
- `svg`: Small SVG charts as strings, without a drawing library, for pages that are rendered every second.
"""
