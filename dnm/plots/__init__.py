"""Pictures: data in, plotly figure out, and the page that holds them; nothing here reads data or trains.

Imports only `dnm.methods` and `dnm.selection`; every wing but `data` may import from here. Read `look` first;
`charts` are pictures of results (learning curves, accuracies), `drawings` pictures of the method.
"""
